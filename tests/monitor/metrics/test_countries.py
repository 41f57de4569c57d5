"""Who gets a slot, and that nobody loses one."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from monitor.metrics.countries import CountrySlots

CODES = st.text("ABCD", min_size=2, max_size=2)


def test_countries_get_slots_in_the_order_in_which_they_come_and_the_rest_is_other() -> None:
    slots = CountrySlots(2)
    assert [slots.label(country) for country in ("DE", "FR", "US", "DE", "FR", "US")] == [
        "DE",
        "FR",
        "other",
        "DE",
        "FR",
        "other",
    ]


def test_an_unknown_country_takes_no_slot() -> None:
    slots = CountrySlots(1)
    assert slots.label(None) == "unknown"
    assert slots.label("DE") == "DE"
    assert slots.label(None) == "unknown"


def test_named_countries_have_the_slots_from_the_beginning_and_no_other_gets_one() -> None:
    slots = CountrySlots(20, ("FR", "DE", "FR"))
    assert slots.known == ("unknown", "other", "FR", "DE")
    assert [slots.label(country) for country in ("US", "DE", "AT", "FR", None)] == [
        "other",
        "DE",
        "other",
        "FR",
        "unknown",
    ]
    assert slots.known == ("unknown", "other", "FR", "DE")


def test_without_slots_every_country_is_other() -> None:
    slots = CountrySlots(0)
    assert slots.label("DE") == "other"
    assert slots.known == ("unknown", "other")


@given(st.integers(0, 6), st.lists(st.none() | CODES))
def test_labels_are_bounded_and_known_and_no_series_ever_shrinks(
    limit: int, countries: list[str | None]
) -> None:
    slots = CountrySlots(limit)
    series: Counter[str] = Counter()
    given_to: dict[str | None, str] = {}
    for number, country in enumerate(countries, start=1):
        before = slots.known
        label = slots.label(country)
        series[label] += 1
        assert slots.known[: len(before)] == before
        assert label in slots.known
        assert len(slots.known) <= limit + 2
        assert series.total() == number
        assert given_to.setdefault(country, label) == label
        assert label in (country, "other", "unknown")
