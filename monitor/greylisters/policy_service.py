"""Policy services and milters: postgrey, sqlgrey, milter-greylist, rspamd.

The mail server asks them, after it has decrypted: nothing is out of their reach, and that makes them the
yardstick. `decided` says that the server had a recipient to ask about. Behind TLS nobody can see from outside
whether one came: such a session counts as decided, since nothing but the client could have kept it from that.

Source: docs/greylisters.md.
"""

from typing import Final

from monitor.greylisters.watcher import StreamWatcher
from monitor.sessions.reach import Ending
from monitor.sessions.record import Envelope, GreylisterReach, Reach
from monitor.smtp.events import CommandAnswered

# How a server refuses a RCPT before it looks at the recipient: it does not know the command or its syntax
# (RFC 5321 section 4.2.2), it is not its turn (503), authentication is required (530, RFC 4954 section 6), a
# parameter is unknown (555). Seen with Postfix, which does not ask about these.
_NOT_LOOKED_AT: Final = frozenset({500, 501, 502, 503, 504, 530, 555})

_DECIDED: Final = GreylisterReach(Reach.DECIDED)
_NO_ENVELOPE: Final = GreylisterReach(Reach.NO_ENVELOPE)
_UNKNOWN: Final = GreylisterReach(Reach.UNKNOWN)


class PolicyService(StreamWatcher):
    name = "policy_service"
    results = frozenset({_DECIDED, _NO_ENVELOPE, _UNKNOWN})

    def answered(self, event: CommandAnswered) -> GreylisterReach | None:
        if event.command.verb != "RCPT" or not event.command.names_a_path:
            return None
        if event.in_doubt:
            return _UNKNOWN
        # One without an answer has come as far as the server, which may just be asking.
        is_looked_at = event.reply is None or event.reply.code not in _NOT_LOOKED_AT
        return _DECIDED if is_looked_at else None

    def ended(self, ending: Ending) -> GreylisterReach:
        if ending.envelope in (Envelope.HIDDEN, Envelope.PARTIAL):
            return _DECIDED
        is_known = ending.envelope is not Envelope.UNKNOWN and ending.end_seen and not ending.commands_lost
        return _NO_ENVELOPE if is_known else _UNKNOWN
