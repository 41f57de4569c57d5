"""What each kind of greylister can still decide, and what other policies would change.

A session counts when it ends; a day's window makes the shares those of a day. All servers together.
"""

from typing import Final

from dashboards.promql import Match, but, increase, select, total
from dashboards.rules.layout import share
from dashboards.rules.rule import Group, Recording
from monitor.metrics.families import GREYLISTER_SESSIONS, PEER_DARK_SESSIONS


def _day(reach: Match) -> str:
    return total(increase(select(GREYLISTER_SESSIONS, reach=reach), "1d"), "greylister")


def _regained(policy: str, lost: str) -> Recording:
    """How many of a day's sessions would come (back) into a greylister's sight under another policy."""
    sessions = total(increase(lost, "1d"))
    return Recording("policy:smtp_sessions_regained:increase1d", sessions, {"policy": policy})


_LOST_TO_STARTTLS: Final = select(GREYLISTER_SESSIONS, greylister="greylite", reach="bypassed", by="starttls")
_LOST: Final = select(GREYLISTER_SESSIONS, greylister="greylite", reach=("bypassed", "blind", "stalled"))

GROUP: Final = Group(
    "smtp-horizon-greylisters",
    [
        # Of the sessions with something to decide on, the share that each program can decide.
        # Its error bar is the next one: sessions of which that is not known.
        Recording(
            "greylister:smtp_sessions_decided:ratio_increase1d",
            share(_day("decided"), _day(but("no_envelope", "unknown"))),
        ),
        Recording(
            "greylister:smtp_sessions_unknown:ratio_increase1d",
            share(_day("unknown"), _day(but("no_envelope"))),
        ),
        # STARTTLS not offered (DENY_TLS=1 in qmail-smtpd's combined patch): all mail in clear.
        _regained("starttls_not_offered", _LOST_TO_STARTTLS),
        # A greylister that keys on the client's address alone (jgreylist, qgreylist, postscreen) decides
        # before the first byte, and a policy service in the mail server (postgrey and friends) after
        # decryption: either has all that greylite misses, be it for STARTTLS, implicit TLS, AUTH, or what it
        # can't parse.
        _regained("address_only", _LOST),
        _regained("policy_service", _LOST),
        # What the first of these policies would cost: sessions now dark, by what their peers did when they
        # got no TLS. `requires`: they went away.
        Recording("tls_need:smtp_peer_dark_sessions:sum", total(select(PEER_DARK_SESSIONS), "tls_need")),
    ],
)
