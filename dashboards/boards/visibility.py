"""How much of our mail is out of sight, and is it growing?"""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Panel

from dashboards import colours
from dashboards.board import Board, Line, Section
from dashboards.boards.strip import strip
from dashboards.panels import (
    BYTES_PER_SECOND,
    COUNT,
    PER_HOUR,
    POINTS,
    SHARE,
    Query,
    bars,
    figure,
    lines,
    note,
    rows,
)
from dashboards.promql import but, increase, rate, ratio, total
from dashboards.variables import of, of_directions
from monitor.metrics.families import BYTES, COUNTRY_SESSIONS, MESSAGES, PEERS, SESSIONS, STARTTLS

_DAY: Final = "1d"
_WEEK: Final = "1w"

_WITH_MAIL: Final = ("visible", "partial", "hidden", "unknown")
"""Envelopes of sessions that brought mail, or may have: what the shares are of."""

_ENVELOPES: Final = {
    "hidden": colours.HIDDEN,
    "partial": colours.PARTIAL,
    "visible": colours.VISIBLE,
    "unknown": colours.UNKNOWN,
    "none": colours.NOTHING,
}

_SHARE_OF: Final = (
    "Of the sessions of the last day that brought mail or may have: envelope visible, partial, hidden or "
    "unknown. Sessions without mail are left out. "
)


def board() -> Board:
    return Board(
        uid="smtp-horizon-visibility",
        title="Visibility",
        question="How much of our mail is out of sight, and is it growing?",
        since="now-30d",
        by_direction=True,
        sections=(
            strip(),
            Section(
                "Out of sight, last day",
                (
                    Line(
                        6,
                        (
                            (6, sessions_out_of_sight()),
                            (4, error_bar()),
                            (4, change_in_a_week()),
                            (5, bytes_out_of_sight()),
                            (5, messages_in_clear()),
                        ),
                    ),
                ),
            ),
            Section(
                "Is it growing?",
                (
                    Line(10, ((16, share_over_weeks()), (8, benchmarks()))),
                    Line(8, ((12, sessions_over_time()), (12, bytes_over_time()))),
                ),
            ),
            Section("STARTTLS on its way", (Line(8, ((10, funnel()), (14, where_it_stopped()))),)),
            Section(
                "Who still sends in clear", (Line(8, ((10, by_port()), (7, by_country()), (7, by_need()))),)
            ),
            Section("What is still in sight", (Line(7, ((24, messages_over_time()),)),)),
        ),
    )


def _share(envelopes: str | tuple[str, ...], *by: str, offset: str = "") -> str:
    part = total(increase(of_directions(SESSIONS, envelope=envelopes), _DAY, offset=offset), *by)
    whole = total(increase(of_directions(SESSIONS, envelope=_WITH_MAIL), _DAY, offset=offset), *by)
    return ratio(part, whole)


_AT_LEAST: Final = _share("hidden")
_AT_MOST: Final = _share(("hidden", "unknown"))


def sessions_out_of_sight() -> Panel:
    return figure(
        "Sessions out of sight (at least)",
        _SHARE_OF
        + "Out of sight: encryption hid the whole envelope. It is the lower end: beside it stands the "
        "upper one. It is neither good nor bad, so it has no colour for either: the sender's mail is "
        "protected, and nobody who reads the stream can judge it.",
        Query(_AT_LEAST, "at least", colours.HIDDEN),
        unit=SHARE,
        decimals=1,
        no_value="no mail seen",
    )


def error_bar() -> Panel:
    return figure(
        "Error bar",
        _SHARE_OF
        + "At most: as if all sessions that were not captured well enough were out of sight, too. The true "
        "share lies between the figure on the left and this one.",
        Query(_AT_MOST, "at most"),
        Query(_share("unknown"), "unknown"),
        unit=SHARE,
        decimals=1,
        steps=((None, colours.UNKNOWN),),
        no_value="no mail seen",
    )


def change_in_a_week() -> Panel:
    return figure(
        "Against a week ago",
        "The share of today minus that of the same day a week ago, in points of a hundred. Smaller than "
        "the error bar it says nothing. Orange below -5: the share of hidden mail seldom falls by itself; "
        "look at the TLS board for handshakes that fail, and at Security for STARTTLS that is masked.",
        Query(f"100 * (({_AT_LEAST}) - ({_share('hidden', offset=_WEEK)}))", "change"),
        unit=POINTS,
        decimals=1,
        steps=((None, colours.NOTICE), (-5, colours.HIDDEN)),
        no_value="no week yet",
    )


def bytes_out_of_sight() -> Panel:
    encrypted = total(increase(of(BYTES, visibility="encrypted"), _DAY))
    return figure(
        "Bytes that are ciphertext",
        "Of the TCP payload of the sessions of the last day, both directions. Large mails weigh more here "
        "than in the share of sessions; bytes that were not captured are in neither. Not by direction of "
        "delivery.",
        Query(ratio(encrypted, total(increase(of(BYTES), _DAY))), "ciphertext", colours.HIDDEN),
        unit=SHARE,
        decimals=1,
        no_value="no bytes",
    )


def messages_in_clear() -> Panel:
    return figure(
        "Messages in clear",
        "MAIL commands seen in clear in the last day. There is no share of messages: how many were sent "
        "inside TLS cannot be counted from outside, a session there may carry none or a hundred.",
        Query(total(increase(of(MESSAGES), _DAY)), "in clear", colours.VISIBLE),
        unit=COUNT,
        decimals=0,
    )


def share_over_weeks() -> Panel:
    return lines(
        "Share of sessions out of sight, each over the day before",
        _SHARE_OF
        + "The grey band reaches from the share that is certain up to the share if all unknown sessions "
        "were hidden. Published figures as dashed lines, for the order of magnitude only: they count "
        "messages, this board counts sessions; sources in the table beside.",
        Query(_AT_LEAST, "at least", colours.HIDDEN),
        Query(_AT_MOST, "at most", colours.UNKNOWN, band_down_to="at least"),
        Query(_share("hidden", offset=_WEEK), "a week before", colours.PARTIAL, dashed=True),
        Query("vector(0.33)", "33 %: Gmail, 2013", colours.REFERENCE, dashed=True),
        Query("vector(0.61)", "61 %: Gmail, 2015", colours.REFERENCE, dashed=True),
        Query("vector(0.94)", "94 %: Cloudflare, 2024", colours.REFERENCE, dashed=True),
        unit=SHARE,
        decimals=0,
        top=1,
        no_value="no mail seen",
    )


def benchmarks() -> Panel:
    return note(
        "What others published",
        "The sources of the dashed lines. None of these figures is ours.",
        "They count **messages**, this board **sessions**: compare the direction, not the digits.\n\n"
        "| mail in TLS | source |\n"
        "| --- | --- |\n"
        "| 33 % to Gmail, 2013 | Durumeric and others, IMC 2015 |\n"
        "| 61 % to Gmail, 2015 | the same |\n"
        "| 94 % to Cloudflare, 2024 | Cloudflare, by alexsci.com |\n"
        "| 98 % from Google, 2024 | Google, by alexsci.com |\n",
    )


def sessions_over_time() -> Panel:
    return lines(
        "Sessions by what could be seen of them",
        "Sessions that ended, an hour. hidden: encryption came before any MAIL. partial: after a MAIL in "
        "clear. visible: a MAIL, and no encryption. none: no mail at all, as of scans. unknown: too little "
        "was captured.",
        Query(_hourly(total(rate(of_directions(SESSIONS)), "envelope")), "{{envelope}}"),
        unit=PER_HOUR,
        colours_by_name=_ENVELOPES,
        stacked=True,
    )


def bytes_over_time() -> Panel:
    return lines(
        "Bytes by what could be seen of them",
        "TCP payload of the sessions that ended, both directions. It is counted when a session ends.",
        Query(total(rate(of(BYTES)), "visibility"), "{{visibility}}"),
        unit=BYTES_PER_SECOND,
        colours_by_name={"encrypted": colours.HIDDEN, "cleartext": colours.VISIBLE},
        stacked=True,
    )


def funnel() -> Panel:
    """Each step holds all that came at least as far; sessions of which that is not known are in none."""
    asked = ("refused", "established", "failed", "abandoned")
    implicit = total(increase(of_directions(SESSIONS, channel="implicit_tls"), _DAY))
    begun = total(increase(of_directions(STARTTLS, outcome=but("unknown")), _DAY))
    steps = {
        "begun in clear": f"{begun} - {implicit}",
        "EHLO answered": _came_to(but("unknown", "not_reached")),
        "offered": _came_to(("unused", *asked)),
        "asked for": _came_to(asked),
        "agreed to": _came_to(asked[1:]),
        "established": _came_to("established"),
    }
    return bars(
        "From connection to encryption, last day",
        "Sessions that came at least so far. What is lost from one bar to the next went no further: no "
        "EHLO, nothing offered (or masked on the way), not asked for, refused, and handshakes that failed "
        "or were abandoned. Left out: TLS from the first byte, and sessions of which it is not known how "
        "far they came.",
        *(
            Query(expression, name, colours.HIDDEN if name == "established" else colours.VISIBLE)
            for name, expression in steps.items()
        ),
        unit=COUNT,
        decimals=0,
        no_value="no sessions",
    )


def _came_to(outcomes: object) -> str:
    return total(increase(of_directions(STARTTLS, outcome=outcomes), _DAY))  # type: ignore[arg-type]


def where_it_stopped() -> Panel:
    return lines(
        "Where STARTTLS stopped",
        "Sessions that ended, an hour, by how far STARTTLS came. Left out: established, and those that "
        "never came to it. not_offered: by the server. unused: by the client. refused: answered other than "
        "220. masked: overwritten on the way. failed, abandoned: answered 220, and no encryption.",
        Query(
            _hourly(
                total(rate(of_directions(STARTTLS, outcome=but("established", "not_reached"))), "outcome")
            ),
            "{{outcome}}",
        ),
        unit=PER_HOUR,
        colours_by_name={
            "unused": colours.VISIBLE,
            "not_offered": colours.NOTHING,
            "unknown": colours.UNKNOWN,
            "refused": colours.REFERENCE,
            "abandoned": colours.PARTIAL,
            "failed": colours.NOTICE,
            "masked": colours.BAD,
        },
        stacked=True,
        legend_right=True,
    )


def by_port() -> Panel:
    return rows(
        "By port, last day",
        _SHARE_OF + "Unknown is the error bar of the share beside it.",
        Query(
            total(increase(of_directions(SESSIONS, envelope=_WITH_MAIL), _DAY), "port"),
            "Sessions",
            unit=COUNT,
        ),
        Query(_share("hidden", "port"), "Out of sight", colours.HIDDEN),
        Query(_share("unknown", "port"), "Unknown"),
        keys=("port",),
        unit=SHARE,
        decimals=1,
        sort_by="Sessions",
    )


def by_country() -> Panel:
    in_clear = increase(of(COUNTRY_SESSIONS, envelope="visible"), _DAY)
    return bars(
        "Sessions in clear by country, last day",
        "The eight countries with most sessions whose mail was in clear. Needs a GeoIP database (--geoip). "
        "Not by direction of delivery.",
        Query(f"topk(8, {total(in_clear, 'country')} > 0)", "{{country}}"),
        unit=COUNT,
        decimals=0,
        no_value="no GeoIP database, or nothing in clear",
    )


def by_need() -> Panel:
    return bars(
        "Peers by what they do without TLS",
        "Addresses that are remembered now. falls_back: sent in clear when it got no TLS. never_asks: "
        "sends in clear where it could have asked. requires: went away. untested: always got its TLS.",
        Query(total(of(PEERS), "tls_need"), "{{tls_need}}"),
        unit=COUNT,
        decimals=0,
        colours_by_name={
            "requires": colours.HIDDEN,
            "untested": colours.UNKNOWN,
            "falls_back": colours.VISIBLE,
            "never_asks": colours.VISIBLE,
        },
        no_value="no peers yet",
    )


def messages_over_time() -> Panel:
    return lines(
        "Messages in clear by outcome",
        "MAIL commands seen in clear, an hour, by how the transaction ended. unknown: the answer was not "
        "captured. Messages inside TLS cannot be counted from outside.",
        Query(_hourly(total(rate(of(MESSAGES)), "outcome")), "{{outcome}}"),
        unit=PER_HOUR,
        colours_by_name={
            "accepted": colours.VISIBLE,
            "rejected": colours.NOTICE,
            "aborted": colours.NOTHING,
            "unknown": colours.UNKNOWN,
        },
        stacked=True,
    )


def _hourly(per_second: str) -> str:
    return f"3600 * {per_second}"
