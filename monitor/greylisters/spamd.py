"""OpenBSD spamd: stands in the server's place until a sender has come back, and never offers STARTTLS.

It keys on address, HELO, sender and recipient, so it decides at the first RCPT whatever the server would
answer. A session that took STARTTLS from the real server would have to fall back to clear text before spamd:
`decided` by `starttls`. Opportunistic senders do; those that insist on TLS never get through. Port 465 can't
be greylisted by it.

Source: docs/greylisters.md.
"""

from typing import Final

from monitor.greylisters.watcher import StreamWatcher
from monitor.sessions.reach import Ending
from monitor.sessions.record import By, GreylisterReach, Reach
from monitor.smtp.events import CommandAnswered
from monitor.smtp.grammar import TLS_STARTERS

_DECIDED: Final = GreylisterReach(Reach.DECIDED)
_NO_ENVELOPE: Final = GreylisterReach(Reach.NO_ENVELOPE)
_UNKNOWN: Final = GreylisterReach(Reach.UNKNOWN)
_BLIND: Final = GreylisterReach(Reach.BLIND, By.IMPLICIT_TLS)
_WOULD_FALL_BACK: Final = GreylisterReach(Reach.DECIDED, By.STARTTLS)


class Spamd(StreamWatcher):
    name = "spamd"
    results = frozenset({_DECIDED, _NO_ENVELOPE, _UNKNOWN, _BLIND, _WOULD_FALL_BACK})

    def answered(self, event: CommandAnswered) -> GreylisterReach | None:
        command, reply = event.command, event.reply
        if command.verb == "RCPT" and command.names_a_path:
            return _DECIDED
        if command.verb in TLS_STARTERS:
            if event.in_doubt:
                return _UNKNOWN
            if reply is not None and reply.positive:
                return _WOULD_FALL_BACK
        return None

    def lost(self) -> GreylisterReach | None:
        return _UNKNOWN  # a RCPT may be among it, or a STARTTLS before the next RCPT

    def ended(self, ending: Ending) -> GreylisterReach:
        if ending.began_in_tls or ending.client_sent_tls:
            return _BLIND
        return _NO_ENVELOPE if ending.end_seen else _UNKNOWN
