"""The PROXY header: whatever a stream begins with, and each of its beginnings."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from monitor.proxy_protocol import V2_SIGNATURE, NeedMore, ProxyHeader, read_proxy_header

MAX_BYTES: Final = 256
WORDS: Final = (
    *(
        b"PROXY ",
        b"TCP4 ",
        b"TCP6 ",
        b"UNKNOWN",
        b"\r\n",
        b" ",
        b"255.255.255.255",
        b"ffff::1",
        b"65535",
        b"0",
    ),
    *(V2_SIGNATURE, b"\x21", b"\x20", b"\x11", b"\x21", b"\x00\x0c", b"\x00\x24"),
)


def check(data: bytes) -> object:
    found = read_proxy_header(data)
    if isinstance(found, ProxyHeader):
        assert 0 < found.length <= len(data)
        assert (found.ip is None) == (found.port is None)
        if found.ip is not None:
            assert str(ip_address(found.ip)) == found.ip
            assert found.port is not None
            assert 0 <= found.port <= 65_535
    settled = False
    for size in range(len(data)):
        before = read_proxy_header(data[:size])
        if settled or not isinstance(before, NeedMore):
            settled = True
            assert before == found, (size, before, found)
    return found if isinstance(found, ProxyHeader) else type(found).__name__


def seeds() -> Iterator[bytes]:
    yield b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 25\r\nEHLO x\r\n"
    yield b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 25\r\n"
    yield b"PROXY UNKNOWN\r\n"
    yield V2_SIGNATURE + b"\x21\x11\x00\x0c" + bytes(range(12)) + b"EHLO"
    yield V2_SIGNATURE + b"\x21\x21\x00\x24" + bytes(range(36))
    yield V2_SIGNATURE + b"\x20\x00\x00\x00"
    yield b"EHLO x\r\n"
