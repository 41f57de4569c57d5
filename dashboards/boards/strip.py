"""The slim strip on top of every board: how well was it watched? The error bar of all that stands below."""

from grafana_foundation_sdk.models.dashboard import Panel

from dashboards import colours, variables
from dashboards.board import Line, Section
from dashboards.panels import COUNT, NOTICE_ABOVE_ZERO, SHARE, Query, figure
from dashboards.promql import increase, ratio, total
from monitor.metrics.families import CAPTURE_UP, PACKETS, PACKETS_DROPPED, SESSIONS

_RANGE = "$__range"


def strip() -> Section:
    return Section("", (Line(3, ((6, capture()), (6, packets_lost()), (6, share_lost()), (6, unknown()))),))


def capture() -> Panel:
    return figure(
        "Capture",
        "Whether every interface of the chosen servers is being captured now. Where it is not, nothing "
        "below counts what passed meanwhile.",
        Query(f"min({variables.of(CAPTURE_UP)})", "capture"),
        unit=COUNT,
        steps=((None, colours.BAD), (1, colours.GOOD)),
        words={"0": ("DOWN", colours.BAD), "1": ("up", colours.GOOD)},
        no_value="no watcher",
    )


def packets_lost() -> Panel:
    return figure(
        "Packets lost",
        "Packets lost in the chosen time before they could be read. Orange from the first one on: the "
        "session that it belonged to is counted as unknown where that matters.",
        Query(total(increase(variables.of(PACKETS_DROPPED), _RANGE)), "lost"),
        unit=COUNT,
        decimals=0,
        steps=NOTICE_ABOVE_ZERO,
    )


def share_lost() -> Panel:
    lost = total(increase(variables.of(PACKETS_DROPPED), _RANGE))
    read = total(increase(variables.of(PACKETS), _RANGE))
    return figure(
        "Share of packets lost",
        "Of all packets that should have been read in the chosen time. Orange from 1 in 10,000: at "
        "20 packets a session, one session in 500 has a gap. Red from 1 %: about every fifth has.",
        Query(ratio(lost, f"{lost} + {read}"), "lost"),
        unit=SHARE,
        decimals=3,
        steps=((None, colours.GOOD), (0.0001, colours.NOTICE), (0.01, colours.BAD)),
        no_value="no packets",
    )


def unknown() -> Panel:
    unknown_sessions = total(increase(variables.of(SESSIONS, envelope="unknown"), _RANGE))
    return figure(
        "Sessions unknown",
        "Sessions of which too little was captured to say what could be seen, of all in the chosen time. "
        "Every share below may be off by that much. Orange from 1 %, red from 5 %: then a change of a few "
        "points says nothing.",
        Query(ratio(unknown_sessions, total(increase(variables.of(SESSIONS), _RANGE))), "unknown"),
        unit=SHARE,
        decimals=2,
        steps=((None, colours.GOOD), (0.01, colours.NOTICE), (0.05, colours.BAD)),
        no_value="no sessions",
    )
