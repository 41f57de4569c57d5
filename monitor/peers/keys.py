"""Addresses and envelopes -> keyed hashes, so that none of them is kept.

The key is random, lives as long as the process, and is written nowhere: equal things can be told to be equal,
and nothing can be read back, by trying all addresses neither. Nobody outside can choose two things whose
hashes are the same.
"""

import os
from hashlib import blake2b
from ipaddress import IPv4Address, ip_address
from typing import Final

_KEY_BYTES: Final = 32
# Chosen: among 400,000 keys two are the same by chance once in 200 million processes.
_DIGEST_BYTES: Final = 8
# What postgrey takes for one sender (--lookup-by-subnet): the /24, and of IPv6 the /64.
_IPV4_NETWORK_BYTES: Final = 3
_IPV6_NETWORK_BYTES: Final = 8

Key = bytes


class Keys:
    """Makes the keys of one process."""

    __slots__ = ("_secret",)

    def __init__(self) -> None:
        self._secret = os.urandom(_KEY_BYTES)

    def peer(self, ip: str) -> Key:
        return self._digest(b"peer", _packed(ip))

    def network(self, ip: str) -> Key:
        """Of the address's /24 (IPv4) or /64 (IPv6)."""
        packed = _packed(ip)
        size = _IPV4_NETWORK_BYTES if len(packed) == 4 else _IPV6_NETWORK_BYTES
        return self._digest(b"network", packed[:size])

    def mail(self, origin: Key, sender: str, recipient: str) -> Key:
        """A mail's sender and recipient, from a peer or from a network.

        As they were spelled: what waits in a queue is spelled the same when it comes again.
        """
        text = sender.encode(errors="backslashreplace")
        length = len(text).to_bytes(4, "big")
        return self._digest(b"mail", origin + length + text + recipient.encode(errors="backslashreplace"))

    def starttls(self, peer: Key, what: str) -> Key:
        """A peer, and what became of its STARTTLS."""
        return self._digest(b"starttls", peer + what.encode())

    def _digest(self, kind: bytes, data: bytes) -> Key:
        return blake2b(data, digest_size=_DIGEST_BYTES, key=self._secret, person=kind).digest()


def _packed(ip: str) -> bytes:
    address = ip_address(ip)
    if not isinstance(address, IPv4Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # a proxy with one socket for both families writes it so
    return address.packed
