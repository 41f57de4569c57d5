"""Community ID: the flow hash by which logs of Zeek, Suricata and others join.

Source: https://github.com/corelight/community-id-spec, version 1, seed 0.
"""

import base64
import hashlib
from typing import Final

_SEED: Final = b"\x00\x00"
_TCP_AND_PADDING: Final = b"\x06\x00"


def community_id(source: bytes, source_port: int, destination: bytes, destination_port: int) -> str:
    """The ID of a TCP flow; the same from both ends. Addresses in network order."""
    one = (source, source_port)
    other = (destination, destination_port)
    (low, low_port), (high, high_port) = (one, other) if one < other else (other, one)
    flow = _SEED + low + high + _TCP_AND_PADDING + low_port.to_bytes(2, "big") + high_port.to_bytes(2, "big")
    return "1:" + base64.b64encode(hashlib.sha1(flow, usedforsecurity=False).digest()).decode("ascii")
