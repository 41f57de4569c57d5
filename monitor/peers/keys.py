"""Addresses and envelopes -> keyed hashes, so that none of them is kept.

The key is random, lives as long as the process, and is written nowhere: equal things can be told to be equal,
and nothing can be read back, by trying all addresses neither. Nobody outside can choose two things whose
hashes are the same.
"""

import os
from hashlib import blake2b
from ipaddress import IPv6Address
from typing import Final

# The key goes in front of what is hashed, with a byte that says what that is. BLAKE2's own mode for keys does
# the same with a whole block (RFC 7693 section 2.9): twice the work, where there are so few bytes to hash.
_KEY_BYTES: Final = 32
# Chosen: among 400,000 keys two are the same by chance once in 200 million processes.
_DIGEST_BYTES: Final = 8
# What postgrey takes for one sender (--lookup-by-subnet): the /24, and of IPv6 the /64.
_IPV6_NETWORK_BYTES: Final = 8
_IPV6: Final = b":"  # in front of an address, and in no text of IPv4

Key = bytes


class Keys:
    """Makes the keys of one process."""

    __slots__ = ("_mail", "_network", "_peer", "_starttls")

    def __init__(self) -> None:
        secret = os.urandom(_KEY_BYTES)
        self._peer = secret + b"p"
        self._network = secret + b"n"
        self._mail = secret + b"m"
        self._starttls = secret + b"s"

    def peer(self, ip: str) -> Key:
        return _digest(self._peer + _address(ip))

    def network(self, ip: str) -> Key:
        """Of the address's /24 (IPv4) or /64 (IPv6)."""
        address = _address(ip)
        is_ipv6 = address.startswith(_IPV6)
        network = address[: len(_IPV6) + _IPV6_NETWORK_BYTES] if is_ipv6 else address[: address.rindex(b".")]
        return _digest(self._network + network)

    def mail(self, origin: Key, sender: str, recipient: str) -> Key:
        """A mail's sender and recipient, from a peer or from a network.

        As they were spelled: what waits in a queue is spelled the same when it comes again.
        """
        text = sender.encode(errors="backslashreplace")
        length = len(text).to_bytes(4, "big")
        return _digest(self._mail + origin + length + text + recipient.encode(errors="backslashreplace"))

    def starttls(self, peer: Key, what: str) -> Key:
        """A peer, and what became of its STARTTLS."""
        return _digest(self._starttls + peer + what.encode())


def _digest(data: bytes) -> Key:
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _address(ip: str) -> bytes:
    """IPv4 as it is written; IPv6 as it is packed, after a colon."""
    if ":" in ip:
        address = IPv6Address(ip)
        mapped = address.ipv4_mapped  # a proxy with one socket for both families writes it so
        if mapped is None:
            return _IPV6 + address.packed
        ip = str(mapped)
    return ip.encode("ascii")
