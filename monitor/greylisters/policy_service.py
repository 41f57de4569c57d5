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

_DECIDED: Final = GreylisterReach(Reach.DECIDED)
_NO_ENVELOPE: Final = GreylisterReach(Reach.NO_ENVELOPE)
_UNKNOWN: Final = GreylisterReach(Reach.UNKNOWN)


class PolicyService(StreamWatcher):
    name = "policy_service"
    results = frozenset({_DECIDED, _NO_ENVELOPE, _UNKNOWN})

    def ended(self, ending: Ending) -> GreylisterReach:
        if ending.recipient_seen or ending.envelope in (Envelope.HIDDEN, Envelope.PARTIAL):
            return _DECIDED
        is_known = ending.envelope is not Envelope.UNKNOWN and ending.end_seen and not ending.commands_lost
        return _NO_ENVELOPE if is_known else _UNKNOWN
