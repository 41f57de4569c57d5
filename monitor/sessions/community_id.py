"""Community ID: the flow hash by which logs of Zeek, Suricata and others join.

Source: https://github.com/corelight/community-id-spec, version 1, seed 0.
"""

from binascii import b2a_base64
from hashlib import sha1
from typing import Final

_SEED: Final = b"\x00\x00"
_TCP_AND_PADDING: Final = b"\x06\x00"


def community_id(source: bytes, source_port: int, destination: bytes, destination_port: int) -> str:
    """The ID of a TCP flow; the same from both ends. Addresses in network order."""
    if source < destination or (source == destination and source_port < destination_port):
        addresses, ports = source + destination, source_port << 16 | destination_port
    else:
        addresses, ports = destination + source, destination_port << 16 | source_port
    flow = _SEED + addresses + _TCP_AND_PADDING + ports.to_bytes(4, "big")
    return "1:" + b2a_base64(sha1(flow, usedforsecurity=False).digest(), newline=False).decode("ascii")
