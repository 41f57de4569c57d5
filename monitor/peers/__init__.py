"""Who comes back, and how: finished records -> what the same peers did before.

peers.py           `Peers`: takes records, holds the clock, hands each visit on
visit.py           what one record says of its peer
keys.py            addresses and envelopes -> keyed hashes; nothing else of them is kept
lately.py          visits whose records overtook that of an older one
returns.py         what was put off, and whether it came again
tapped_returns.py  the same of what was put off inside TLS, where a tap looks there
tls_need.py        what each peer does where it does not get TLS

Rules, windows and bounds: docs/peers.md.
"""

from monitor.peers.peers import Peers
from monitor.peers.returns import RETURNS, After, GivenUp, Return, Returns
from monitor.peers.tls_need import TlsNeed

__all__ = ["RETURNS", "After", "GivenUp", "Peers", "Return", "Returns", "TlsNeed"]
