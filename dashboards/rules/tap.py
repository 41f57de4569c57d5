"""Alerts on the tap of the mail server's TLS library: it sees less than it should, or what it sees says that
we are wrong.
"""

from typing import Final

from dashboards.promql import increase, select, total
from dashboards.rules.layout import lines
from dashboards.rules.rule import Alert, Group, Severity
from monitor.metrics.families import (
    TAPPED_SESSIONS,
    TLS_TAP_ENABLED,
    TLS_TAP_EVENTS_LOST,
    TLS_TAP_LIBRARIES,
    VERDICT_MISMATCHES,
)

_MISSED_SHARE: Final = 0.1
"""Chosen: with a tenth unseen, a class of mail that is rare in the dark may be missing altogether."""
_MISSED_AT_LEAST: Final = 10
"""Chosen above what is open, and silent, when the tap begins on a quiet server."""
_LOST_AT_LEAST: Final = 20
"""Chosen so that one full buffer tells nobody, as with packets."""


_ALL: Final = select(TAPPED_SESSIONS)
_MISSED: Final = select(TAPPED_SESSIONS, result="missed")


def _of_port(sessions: str, window: str) -> str:
    return total(increase(sessions, window), "instance", "port")


def _missed_share(window: str) -> str:
    return f"{_of_port(_MISSED, window)}\n  / {_of_port(_ALL, window)} > {_MISSED_SHARE}"


def _lost(window: str) -> str:
    return total(increase(select(TLS_TAP_EVENTS_LOST), window), "instance")


VERDICT_MISMATCH: Final = Alert(
    "SmtpHorizonVerdictMismatch",
    total(increase(select(VERDICT_MISMATCHES), "1d"), "instance") + " > 0",
    "1m",
    Severity.WARNING,
    "smtp-horizon on {{ $labels.instance }} took sessions for what they were not",
    "In about {{ $value | humanize }} sessions of a day the packets were read one way, and the TLS tap saw "
    "the other. That is a fault of smtp-horizon's; other sessions may be wrong, too.",
)

TAP_DETACHED: Final = Alert(
    "SmtpHorizonTlsTapDetached",
    lines(f"{select(TLS_TAP_LIBRARIES)} == 0", f"and {select(TLS_TAP_ENABLED)} == 1"),
    "5m",
    Severity.WARNING,
    "The TLS tap on {{ $labels.instance }} is attached to nothing",
    "For 5 minutes no TLS library has been tapped, though --tls-tap was asked for. What is inside TLS is not "
    "seen; all else is.",
)

TAP_MISSES_SESSIONS: Final = Alert(
    "SmtpHorizonTlsTapMissesSessions",
    lines(
        _missed_share("6h"),
        f"and {_missed_share('1h')}",
        f"and {_of_port(_MISSED, '6h')} >= {_MISSED_AT_LEAST}",
        f"and on (instance) {select(TLS_TAP_LIBRARIES)} > 0",  # else SmtpHorizonTlsTapDetached tells
    ),
    "30m",
    Severity.WARNING,
    "The TLS tap on {{ $labels.instance }} misses {{ $value | humanizePercentage }} of the sessions on port "
    "{{ $labels.port }}",
    "So many of the encrypted sessions to us of the last 6 hours were not seen inside, and the last hour "
    "is no better. What is said of dark mail is said of the others only.",
)

TAP_EVENTS_LOST: Final = Alert(
    "SmtpHorizonTlsTapEventsLost",
    lines(f"{_lost('1h')} >= {_LOST_AT_LEAST}", f"and {_lost('5m')} > 0"),
    "15m",
    Severity.WARNING,
    "The TLS tap on {{ $labels.instance }} loses events",
    "About {{ $value | humanize }} in the last hour, and it goes on. The sessions that they belonged to are "
    "partial: some of their messages are not counted.",
)

GROUP: Final = Group(
    "smtp-horizon-tap",
    [
        VERDICT_MISMATCH,
        TAP_DETACHED,
        TAP_MISSES_SESSIONS,
        TAP_EVENTS_LOST,
    ],
)
