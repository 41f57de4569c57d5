"""The label `country`, which must not grow with what the world sends: a bounded number of countries has a
series each, and the rest share one (docs/adr/0010-countries.md).
"""

from collections.abc import Sequence
from typing import Final

from monitor.metrics.labels import OTHER, UNKNOWN

DEFAULT_SLOTS: Final = 50
"""Chosen so that the largest ten nearly always have one: the decision's document has figures."""

SLOTS_MAX: Final = 250
"""Enough for all 249 codes of ISO 3166-1, and Kosovo's XK, which databases use too."""


class CountrySlots:
    """Gives slots to countries, for the life of the process.

    For one thread; `known` may be read from another.
    """

    def __init__(self, limit: int, fixed: Sequence[str] = ()) -> None:
        """`limit`: how many countries may have a slot, in the order in which they come. `fixed`: those that
        have one from the beginning; then no other gets one, whatever `limit` is."""
        self._countries = dict.fromkeys(fixed)
        self._limit = len(self._countries) if fixed else limit
        self._known = (UNKNOWN, OTHER, *self._countries)

    @property
    def known(self) -> tuple[str, ...]:
        """All labels that `label` has given or holds ready; it only ever grows, at its end."""
        return self._known

    def label(self, country: str | None) -> str:
        """The country itself, while it has a slot or can get one; else `other`, and `unknown` for None."""
        if country is None:
            return UNKNOWN
        if country in self._countries:
            return country
        if len(self._countries) >= self._limit:
            return OTHER
        self._countries[country] = None
        self._known = (*self._known, country)
        return country
