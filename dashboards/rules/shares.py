"""Shares: of sessions and bytes that are out of sight, and of STARTTLS that was established or failed.

Those of a server stand under `instance:`, those of its ports under `instance_port:`. Where there was nothing
to have a share of, there is no result.
"""

from typing import Final

from dashboards.promql import but, increase, select, total
from dashboards.rules.layout import share
from dashboards.rules.rule import Group, Recording
from monitor.metrics.families import BYTES, RECORDS, SESSIONS, STARTTLS

_WITH_MAIL: Final = ("hidden", "partial", "visible", "unknown")
"""Sessions that carried mail or may have: the whole of which the shares are."""
_NOT_OURS: Final = but("outbound")
"""Sessions to our servers, those included of which nobody told us whether the server is ours."""


def _inbound(window: str, *by: str, envelope: str | tuple[str, ...]) -> str:
    return total(increase(select(SESSIONS, direction="inbound", envelope=envelope), window), "instance", *by)


def _starttls(window: str, outcome: str | tuple[str, ...]) -> str:
    sessions = select(STARTTLS, direction=_NOT_OURS, outcome=outcome)
    return total(increase(sessions, window), "instance", "port")


def _reached(window: str) -> str:
    sessions = select(STARTTLS, direction=_NOT_OURS, outcome=but("not_reached", "unknown"))
    return total(increase(sessions, window), "instance", "port")


def hidden(window: str) -> Recording:
    """Of inbound sessions with mail, those that a stream watcher surely can't read; with `unknown` on top it
    is the upper end."""
    of_them = share(_inbound(window, envelope="hidden"), _inbound(window, envelope=_WITH_MAIL))
    return Recording(f"instance:smtp_sessions_hidden:ratio_increase{window}", of_them)


def unknown(window: str) -> Recording:
    """Of the same sessions, those of which too little was captured: the error bar."""
    of_them = share(_inbound(window, envelope="unknown"), _inbound(window, envelope=_WITH_MAIL))
    return Recording(f"instance:smtp_sessions_unknown:ratio_increase{window}", of_them)


def hidden_by_port(window: str) -> Recording:
    of_them = share(
        _inbound(window, "port", envelope="hidden"), _inbound(window, "port", envelope=_WITH_MAIL)
    )
    return Recording(f"instance_port:smtp_sessions_hidden:ratio_increase{window}", of_them)


def encrypted_bytes(window: str) -> Recording:
    encrypted = total(increase(select(BYTES, visibility="encrypted"), window), "instance")
    everything = total(increase(select(BYTES), window), "instance")
    return Recording(f"instance:smtp_bytes_encrypted:ratio_increase{window}", share(encrypted, everything))


def reached(window: str) -> Recording:
    """Sessions in which EHLO was answered in clear: what the share of established STARTTLS is one of."""
    return Recording(f"instance_port:smtp_starttls_reached:increase{window}", _reached(window))


def established(window: str) -> Recording:
    of_them = share(_starttls(window, "established"), _reached(window))
    return Recording(f"instance_port:smtp_starttls_established:ratio_increase{window}", of_them)


def failed(window: str) -> Recording:
    """Of the handshakes that STARTTLS began, those that did not complete. Of TLS from the first byte, failed
    handshakes are not counted."""
    of_them = share(_starttls(window, "failed"), _starttls(window, ("established", "failed")))
    return Recording(f"instance_port:smtp_starttls_failed:ratio_increase{window}", of_them)


def failures(window: str) -> Recording:
    return Recording(f"instance_port:smtp_starttls_failed:increase{window}", _starttls(window, "failed"))


def records_failed(window: str) -> Recording:
    """Of the records that were to be written, those that could not be; no result while no session ended."""
    failed_ones = total(increase(select(RECORDS, result="failed"), window), "instance")
    everything = total(increase(select(RECORDS), window), "instance")
    return Recording(
        f"instance:smtp_monitor_records_failed:ratio_increase{window}", share(failed_ones, everything)
    )


GROUPS: Final = (
    Group(
        "smtp-horizon-visibility",
        [
            *(make(window) for make in (hidden, unknown, encrypted_bytes) for window in ("5m", "1h", "1d")),
            *(hidden_by_port(window) for window in ("1h", "1d")),
        ],
    ),
    Group(
        "smtp-horizon-starttls",
        [
            *(established(window) for window in ("1h", "6h", "1d")),
            reached("6h"),
            *(failed(window) for window in ("15m", "1h", "1d")),
            failures("1h"),
        ],
    ),
    Group("smtp-horizon-records", [records_failed("5m")]),
)
