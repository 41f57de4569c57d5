"""greylite 2.3: a wrapper before qmail-smtpd, or an SMTP proxy, that greylists.

It reads in lockstep, a line of the client and a line of the server, and decides once: at the first RCPT that
the server does not answer with 4xx or 5xx. Where the answer to STARTTLS, AUTH or DATA comes before that, it
steps aside for the rest of the connection. Its own table of verified addresses is not in this model but in
the simulation: what it passes unread because it knows the address is in its reach all the same.

Source: the program itself, run against real servers and read; docs/greylisters.md goes through it line by
line.
"""

import re
from typing import Final

from monitor.greylisters.placement import TlsEnds
from monitor.greylisters.watcher import StreamWatcher
from monitor.sessions.reach import Ending
from monitor.sessions.record import By, GreylisterReach, Reach
from monitor.smtp.events import CommandAnswered
from monitor.smtp.grammar import AUTHENTICATORS, TLS_STARTERS, Command
from monitor.smtp.replies import Reply

LINE_OCTETS: Final = 1_023
"""Its buffer, line end included; the rest of a longer line is the next line to it."""
_REPLY_TEXT_OCTETS: Final = LINE_OCTETS - 6
"""The same of a reply: the code, its separator and the line end are in it."""
ARGUMENT_OCTETS: Final = 511
"""It closes on a longer address, and on a longer name in HELO and EHLO."""

_LOCAL: Final = rb"-&*+./0-9=?a-zA-Z^_{}~"
# Its own expression, anywhere in the line; looked for only where a run of its characters begins, so that the
# time stays linear.
_ADDRESS: Final = re.compile(rb"(?<![%b])[%b]++@(?:[-a-zA-Z0-9_]++\.)*[a-zA-Z0-9]+" % (_LOCAL, _LOCAL))
_PATH_LINES: Final = {
    "MAIL": re.compile(rb"mail\s+from:", re.IGNORECASE),
    "RCPT": re.compile(rb"rcpt\s+to:", re.IGNORECASE),
}
_BARE_AUTH_OCTETS: Final = len(b"AUTH\r\n")
# What it takes for no name of HELO and EHLO at all, however long it is.
_NO_NAME: Final = re.compile(r"['\s]", re.ASCII)

_DECIDED: Final = GreylisterReach(Reach.DECIDED)
_STALLED: Final = GreylisterReach(Reach.STALLED)
_NO_ENVELOPE: Final = GreylisterReach(Reach.NO_ENVELOPE)
_UNKNOWN: Final = GreylisterReach(Reach.UNKNOWN)


class Greylite(StreamWatcher):
    name = "greylite"
    results = frozenset(
        {_DECIDED, _STALLED, _NO_ENVELOPE, _UNKNOWN, GreylisterReach(Reach.BLIND, By.IMPLICIT_TLS)}
        | {GreylisterReach(Reach.BYPASSED, by) for by in (By.STARTTLS, By.AUTH, By.DATA)}
        | {GreylisterReach(Reach.UNKNOWN, by) for by in (By.STARTTLS, By.IMPLICIT_TLS)}
    )

    def greeted(self, banner: Reply) -> GreylisterReach | None:
        if _is_refusal(banner):
            return _NO_ENVELOPE  # it ends the connection itself
        if not banner.whole:
            return _UNKNOWN
        return _STALLED if _holds_up(banner) else None

    def answered(self, event: CommandAnswered) -> GreylisterReach | None:
        command, reply = event.command, event.reply
        if command.octets > LINE_OCTETS or command.has_nul:
            return _STALLED
        if event.in_doubt:
            return _UNKNOWN
        verb = command.verb
        if verb == "BDAT" and command.size_bytes:
            return _STALLED  # it waits for a reply, and the server for the chunk
        if reply is None:
            return None
        if not _is_refusal(reply):
            if verb in TLS_STARTERS and not command.masked:
                if self.tls_ends is TlsEnds.PROXY:
                    # It reads on where we can't: whether it decided is not to be seen from here.
                    return GreylisterReach(Reach.UNKNOWN, By.STARTTLS)
                if verb == "STARTTLS":  # any other word it does not know, and reads on
                    return GreylisterReach(Reach.BYPASSED, By.STARTTLS)
            if verb == "AUTH" and command.octets > _BARE_AUTH_OCTETS:
                return GreylisterReach(Reach.BYPASSED, By.AUTH)
            if verb in AUTHENTICATORS and reply.intermediate:
                return _UNKNOWN  # it reads the exchange line by line, and we keep none of it
            if verb in ("HELO", "EHLO") and _has_long_name(command):
                return _STALLED
            if verb == "DATA":
                return GreylisterReach(Reach.BYPASSED, By.DATA)
            if verb in _PATH_LINES and _PATH_LINES[verb].match(command.line):
                address = address_in(command.line)
                if address is None or len(address) > ARGUMENT_OCTETS:
                    return _STALLED
                if verb == "RCPT":
                    return _DECIDED
            if verb == "QUIT":
                return _NO_ENVELOPE
        if not reply.whole:
            return _UNKNOWN
        return _STALLED if _holds_up(reply) else None

    def lost(self) -> GreylisterReach | None:
        return _UNKNOWN

    def ended(self, ending: Ending) -> GreylisterReach:
        if ending.began_in_tls:
            if self.tls_ends is TlsEnds.PROXY:
                return GreylisterReach(Reach.UNKNOWN, By.IMPLICIT_TLS)
            return GreylisterReach(Reach.BLIND, By.IMPLICIT_TLS)
        if ending.client_sent_tls:
            return _STALLED  # lengths in a TLS record have bytes of zero
        return _NO_ENVELOPE if ending.end_seen else _UNKNOWN


def address_in(line: bytes) -> bytes | None:
    """The address that it takes from a MAIL or RCPT line: the first match; b"" for `<>` alone."""
    found = _ADDRESS.search(line)
    if found is not None:
        return found[0]
    return b"" if b"<>" in line else None


def _has_long_name(command: Command) -> bool:
    octets = command.octets - len(b"EHLO \r\n")
    return octets > ARGUMENT_OCTETS and _NO_NAME.search(command.name) is None


def _is_refusal(reply: Reply) -> bool:
    return reply.code // 100 in (4, 5)


def _holds_up(reply: Reply) -> bool:
    """It hands on one line of a reply, and goes on to the next only after `250-`."""
    if len(reply.lines) > 1 and reply.code != 250:
        return True
    return any(len(line) > _REPLY_TEXT_OCTETS or 0 in line for line in reply.lines)
