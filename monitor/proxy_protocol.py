"""The PROXY protocol: the header by which a load balancer names the real client, before the first byte of
SMTP.

Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, sections 2.1 (version 1, a line) and 2.2
(version 2, binary). Health checks send `PROXY UNKNOWN`, or LOCAL in version 2: a header that names nobody.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final

V1_SIGNATURE: Final = b"PROXY "
V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
V1_LINE_LIMIT_BYTES: Final = 107  # section 2.1: "the worst case"

_V1_ADDRESSES: Final[dict[bytes, type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]]] = {
    b"TCP4": ipaddress.IPv4Address,
    b"TCP6": ipaddress.IPv6Address,
}
_V2_HEADER_BYTES: Final = 16
_V2_VERSION_AND_PROXY: Final = 0x21
# Address family and transport -> (bytes of one address). Only TCP is of interest: section 2.2, "fam".
_V2_ADDRESS_BYTES: Final[dict[int, int]] = {0x11: 4, 0x21: 16}


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole PROXY header."""

    length: int
    """Its bytes on the wire."""
    ip: str | None
    """The real client; None where the header names none."""
    port: int | None


class NeedMore:
    """What was given may become a PROXY header; more bytes will tell."""


def read_proxy_header(data: bytes) -> ProxyHeader | NeedMore | None:
    """Reads the header that a client's stream may begin with; None where it does not begin with one."""
    if data.startswith(V1_SIGNATURE):
        return _read_v1(data)
    if data.startswith(V2_SIGNATURE):
        return _read_v2(data)
    if V1_SIGNATURE.startswith(data) or V2_SIGNATURE.startswith(data):
        return NeedMore()
    return None


def _read_v1(data: bytes) -> ProxyHeader | NeedMore | None:
    end = data.find(b"\r\n", 0, V1_LINE_LIMIT_BYTES)
    if end < 0:
        return NeedMore() if len(data) < V1_LINE_LIMIT_BYTES else None
    words = data[:end].split(b" ")
    nobody = ProxyHeader(end + 2, None, None)
    address_type = _V1_ADDRESSES.get(words[1])
    # A scope ("%eth0") and digits that only Python knows ("4_0") have no place in it.
    if len(words) != 6 or address_type is None or b"%" in words[2] or not words[4].isdigit():
        return nobody
    try:
        address = address_type(words[2].decode("ascii"))
    except ValueError:  # UnicodeDecodeError is one
        return nobody
    port = int(words[4])
    return ProxyHeader(end + 2, str(address), port) if port <= 65_535 else nobody


def _read_v2(data: bytes) -> ProxyHeader | NeedMore:
    if len(data) < _V2_HEADER_BYTES:
        return NeedMore()
    length = _V2_HEADER_BYTES + int.from_bytes(data[14:16], "big")
    if len(data) < length:
        return NeedMore()
    size = _V2_ADDRESS_BYTES.get(data[13], 0)
    if data[12] != _V2_VERSION_AND_PROXY or not size or length < _V2_HEADER_BYTES + 2 * size + 4:
        return ProxyHeader(length, None, None)
    addresses = data[_V2_HEADER_BYTES:]
    return ProxyHeader(
        length,
        str(ipaddress.ip_address(addresses[:size])),
        int.from_bytes(addresses[2 * size : 2 * size + 2], "big"),
    )
