"""Alerts that the watcher is not well: what it says of the mail is missing, or is not to be trusted."""

from typing import Final

from dashboards.promql import Match, but, increase, select, total
from dashboards.rules import shares
from dashboards.rules.layout import lines
from dashboards.rules.rule import Alert, Group, Severity
from monitor.metrics.families import (
    BUILD_INFO,
    CAPTURE_UP,
    LAG,
    PACKETS,
    PACKETS_DROPPED,
    SESSIONS,
)

_LOST_SHARE: Final = 0.001
"""A session has some 20 packets (docs/benchmarks.md): one lost in 1,000 touches 2 % of the sessions."""
_LOST_AT_LEAST: Final = 20
"""Chosen so that one full buffer on a quiet machine tells nobody."""
_LAG_SECONDS: Final = 1
"""A probe that keeps up is up to 0.2 s behind; eBPF and libpcap lost packets when they were 1.4 s behind,
pyshark at 10 s (docs/benchmarks.md)."""
_UNKNOWN_SHARE: Final = 0.05
"""Chosen: the hidden share is then off by up to five points, more than it changes in most weeks."""
_UNKNOWN_AT_LEAST: Final = 10
"""Chosen above what a restart leaves half seen on a quiet server."""


def _of_server(expression: str) -> str:
    return total(expression, "instance")


def _lost(window: str) -> str:
    # Not what the interface drops, which may be any traffic, nor incomplete fragments, which anybody can
    # send. Where these take mail with them, SmtpHorizonSessionsUnknown tells.
    where = ("kernel", "ring_buffer", "tshark")
    return _of_server(increase(select(PACKETS_DROPPED, where=where), window))


def _read(window: str) -> str:
    return _of_server(increase(select(PACKETS, verdict="segment"), window))


def _sessions(window: str, envelope: Match) -> str:
    return _of_server(increase(select(SESSIONS, envelope=envelope), window))


CAPTURE_DOWN: Final = Alert(
    "SmtpHorizonCaptureDown",
    f"{select(CAPTURE_UP)} == 0",
    "5m",
    Severity.CRITICAL,
    "{{ $labels.interface }} on {{ $labels.instance }} is not being captured",
    "For 5 minutes the probe {{ $labels.probe }} has had no capture on {{ $labels.interface }}. "
    "Mail that passes there is not counted, and nothing will bring it back.",
)

EXPORTER_GONE: Final = Alert(
    "SmtpHorizonExporterGone",
    # Which targets are ours is known by what they served: no job has to have a certain name. A target that
    # was taken out of the scrape configuration has no `up` any more, and is not missed. The second half is
    # for the case that none is left, or that none ever came.
    lines(
        f"up == 0 and on (job, instance) last_over_time({select(BUILD_INFO)}[7d])",
        "or on ()",
        f"absent({select(BUILD_INFO)})",
    ),
    "10m",
    Severity.CRITICAL,
    "smtp-horizon {{ with $labels.instance }}on {{ . }}{{ else }}anywhere{{ end }} can't be scraped",
    "For 10 minutes Prometheus has got no metrics. The watcher has ended, hangs, or can't be reached. "
    "The other alerts on it say nothing until it is back.",
)

PACKETS_LOST: Final = Alert(
    "SmtpHorizonPacketsLost",
    lines(
        _lost("1h"),
        "  / (",
        f"    {_lost('1h')}",
        f"    + {_read('1h')}",
        f"  ) > {_LOST_SHARE}",
        f"and {_lost('1h')} >= {_LOST_AT_LEAST}",
        f"and {_lost('5m')} > 0",
    ),
    "15m",
    Severity.WARNING,
    "{{ $labels.instance }} loses {{ $value | humanizePercentage }} of its packets",
    "So much was lost in the last hour, and it goes on. Sessions with a gap may become unknown, and are left "
    "out of the shares.",
)

FALLING_BEHIND: Final = Alert(
    "SmtpHorizonFallingBehind",
    f"{select(LAG)} > {_LAG_SECONDS}",
    "10m",
    Severity.WARNING,
    "{{ $labels.instance }} reads {{ $value | humanizeDuration }} behind the wire",
    "No scrape of the last 10 minutes found it near the wire. Nothing is lost by that yet; packets will be "
    "when the buffers are full.",
)

RECORDS_NOT_WRITTEN: Final = Alert(
    "SmtpHorizonRecordsNotWritten",
    # What was when a record was last to be written: silence heals nothing, and on a small server hours pass
    # between two sessions.
    f"last_over_time({shares.records_failed('5m').record}[6h]) > 0",
    "15m",
    Severity.WARNING,
    "{{ $labels.instance }} can't write its session records",
    "{{ $value | humanizePercentage }} of them were lost when there were any last, within the last 6 hours. "
    "Metrics go on.",
)

SESSIONS_UNKNOWN: Final = Alert(
    "SmtpHorizonSessionsUnknown",
    lines(
        _sessions("6h", "unknown"),
        f"  / {_sessions('6h', but('none'))} > {_UNKNOWN_SHARE}",
        f"and {_sessions('1h', 'unknown')}",
        f"  / {_sessions('1h', but('none'))} > {_UNKNOWN_SHARE}",
        f"and {_sessions('6h', 'unknown')} >= {_UNKNOWN_AT_LEAST}",
    ),
    "30m",
    Severity.WARNING,
    "{{ $value | humanizePercentage }} of the sessions on {{ $labels.instance }} are unknown",
    "In the last 6 hours, and still in the last one, too little was captured of them. They are left out of "
    "the shares, which are off by up to as much.",
)

GROUP: Final = Group(
    "smtp-horizon-watcher",
    [
        CAPTURE_DOWN,
        EXPORTER_GONE,
        PACKETS_LOST,
        FALLING_BEHIND,
        RECORDS_NOT_WRITTEN,
        SESSIONS_UNKNOWN,
    ],
)
