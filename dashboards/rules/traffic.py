"""Alerts that the mail is not well: encryption that went away, or what should not have been in clear."""

from typing import Final

from dashboards.promql import Match, but, increase, select, total
from dashboards.rules import shares
from dashboards.rules.layout import lines
from dashboards.rules.rule import Alert, Group, Severity
from monitor.metrics.families import ANOMALIES, GREYLISTER_SESSIONS, STARTTLS

_FALLEN_TO: Final = 0.75
"""Chosen: with 200 sessions in each week, a fall of a 70 % share by a quarter is four standard deviations."""
_SESSIONS_AT_LEAST: Final = 200

_FAILED_SHARE: Final = 0.1
"""Chosen above what scanners and old clients leave on a server that is well."""
_FAILURES_AT_LEAST: Final = 10
"""Chosen above what one peer makes of it that tries again every ten minutes."""
_RISEN_BY: Final = 3
"""Chosen: a server that always has scanners has its own measure."""

_MASKED_AT_LEAST: Final = 3
"""Chosen: one may be a scan or a peer."""
_MASKED_IN_AN_HOUR: Final = 10
"""Chosen above what one peer sends in an hour: a bout that is over before a busy day shows it."""
_MASKED_SHARE: Final = 0.1
"""Chosen: a device of ours masks every session that passes it, a peer's only those of that peer."""


def _masked(window: str, outcome: Match = "masked") -> str:
    return total(increase(select(STARTTLS, outcome=outcome), window), "instance", "direction")


def _masked_share(window: str) -> str:
    return f"{_masked(window)}\n  / {_masked(window, but('not_reached', 'unknown'))}"


_ESTABLISHED: Final = shares.established("6h").record
# As long as its `for`: what is over is not told.
_ESTABLISHED_LATELY: Final = shares.established("1h").record
_REACHED: Final = shares.reached("6h").record

STARTTLS_SHARE_FELL: Final = Alert(
    "SmtpHorizonStarttlsShareFell",
    lines(
        f"{_ESTABLISHED} < {_FALLEN_TO} * ({_ESTABLISHED} offset 1w)",
        f"and {_REACHED} >= {_SESSIONS_AT_LEAST}",
        f"and ({_REACHED} offset 1w) >= {_SESSIONS_AT_LEAST}",
        f"unless {_ESTABLISHED_LATELY} >= {_FALLEN_TO} * ({_ESTABLISHED} offset 1w)",
    ),
    "1h",
    Severity.WARNING,
    "STARTTLS on port {{ $labels.port }} of {{ $labels.instance }} fell to {{ $value | humanizePercentage }}",
    "In that share of the last 6 hours' sessions STARTTLS was established: less than three quarters of what "
    "it was a week ago at this time. The last hour does not look better.",
)

_FAILED: Final = shares.failed("1h").record

TLS_HANDSHAKE_FAILURES_ROSE: Final = Alert(
    "SmtpHorizonTlsHandshakeFailuresRose",
    # The quarter of an hour is for scans of a server's TLS, which fail a hundred handshakes in minutes.
    lines(
        f"{_FAILED} > {_FAILED_SHARE}",
        f"and {shares.failures('1h').record} >= {_FAILURES_AT_LEAST}",
        f"and {shares.failed('15m').record} > {_FAILED_SHARE}",
        f"unless {_FAILED} <= {_RISEN_BY} * ({shares.failed('1d').record} offset 1w)",
    ),
    "30m",
    Severity.WARNING,
    "{{ $value | humanizePercentage }} of TLS handshakes fail on port {{ $labels.port }} of "
    "{{ $labels.instance }}",
    "Of the last hour's handshakes that STARTTLS began: more than three times the share of the day a week "
    "ago, or nothing is known of that day. Senders fall back to clear text, or their mail waits.",
)

STARTTLS_MASKED: Final = Alert(
    "SmtpHorizonStarttlsMasked",
    lines(
        f"{_masked('1d')} >= {_MASKED_AT_LEAST}",
        f"and {_masked_share('1d')} >= {_MASKED_SHARE}",
        f"and {_masked('6h')} > 0",
        f"or {_masked('1h')} >= {_MASKED_IN_AN_HOUR}",
        f"and {_masked_share('1h')} >= {_MASKED_SHARE}",
    ),
    "10m",
    Severity.WARNING,
    "Something overwrites STARTTLS in {{ $labels.direction }} sessions of {{ $labels.instance }}",
    "In about {{ $value | humanize }} sessions of the last day, or the last hour, STARTTLS came as XXXXXXXA "
    "or the like. A device on the way does that; the mail goes in clear.",
)

AUTH_IN_CLEAR: Final = Alert(
    "SmtpHorizonAuthInClear",
    # smtp_auth_total has the attempts that a server refuses, too; a public one has some every day.
    # greylite's model knows which were not refused.
    total(
        increase(select(GREYLISTER_SESSIONS, greylister="greylite", reach="bypassed", by="auth"), "1d"),
        "instance",
    )
    + " > 0",
    "5m",
    Severity.WARNING,
    "{{ $labels.instance }} takes AUTH in clear",
    "In about {{ $value | humanize }} sessions of a day a client sent AUTH in clear, and the server did not "
    "refuse it. Whoever reads the line can read passwords.",
)

_INJECTIONS: Final = ("cleartext_after_tls", "response_injection", "starttls_injection")

INJECTION_SEEN: Final = Alert(
    "SmtpHorizonInjectionSeen",
    total(increase(select(ANOMALIES, anomaly=_INJECTIONS), "1d"), "instance", "anomaly") + " > 0",
    "5m",
    Severity.INFO,
    "{{ $labels.anomaly }} was seen on {{ $labels.instance }}",
    "In about {{ $value | humanize }} sessions of a day somebody sent clear text where TLS begins, or after "
    "it began. A server that is up to date makes nothing of it.",
)

GROUP: Final = Group(
    "smtp-horizon-traffic",
    [
        STARTTLS_SHARE_FELL,
        TLS_HANDSHAKE_FAILURES_ROSE,
        STARTTLS_MASKED,
        AUTH_IN_CLEAR,
        INJECTION_SEEN,
    ],
)
