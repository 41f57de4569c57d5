"""jgreylist and its kin: wrappers that key on the client's address alone.

qgreylist takes its /24, postscreen the address. They decide before the first byte, so nothing that a session
does takes it out of their reach, not even a capture with holes.

Source: docs/greylisters.md.
"""

from typing import Final

from monitor.greylisters.watcher import StreamWatcher
from monitor.sessions.reach import Ending
from monitor.sessions.record import GreylisterReach, Reach

_DECIDED: Final = GreylisterReach(Reach.DECIDED)


class Jgreylist(StreamWatcher):
    name = "jgreylist"
    results = frozenset({_DECIDED})

    def ended(self, ending: Ending) -> GreylisterReach:
        return _DECIDED
