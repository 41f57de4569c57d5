"""The PROXY header of versions 1 and 2, whole, cut, and malformed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.proxy_protocol import V1_LINE_LIMIT_BYTES, V2_SIGNATURE, NeedMore, ProxyHeader, read_proxy_header


def v2(command: int, family: int, body: bytes) -> bytes:
    return V2_SIGNATURE + bytes((command, family)) + len(body).to_bytes(2, "big") + body


V4 = bytes((192, 0, 2, 1, 192, 0, 2, 2)) + (40_000).to_bytes(2, "big") + (25).to_bytes(2, "big")
V6 = bytes.fromhex("20010db8" + "0" * 23 + "1") + bytes(16) + (40_000).to_bytes(2, "big") + bytes(2)

WHOLE = [
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 25\r\n", "192.0.2.1", 40_000),
    (b"PROXY TCP6 2001:DB8::1 2001:db8::2 40000 25\r\n", "2001:db8::1", 40_000),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None, None),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n", None, None),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 25\r\n", None, None),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 4_0 25\r\n", None, None),
    (b"PROXY TCP4 2001:db8::1 2001:db8::2 40000 25\r\n", None, None),
    (b"PROXY TCP6 192.0.2.1 192.0.2.2 40000 25\r\n", None, None),
    (b"PROXY TCP6 fe80::1%eth0 ::1 40000 25\r\n", None, None),
    (b"PROXY TCP4 mx.example 192.0.2.2 40000 25\r\n", None, None),
    (b"PROXY TCP4 \xff 192.0.2.2 40000 25\r\n", None, None),
    (b"PROXY \r\n", None, None),
    (v2(0x21, 0x11, V4), "192.0.2.1", 40_000),
    (v2(0x21, 0x11, V4 + b"\x04\x00\x03abc"), "192.0.2.1", 40_000),  # vendor fields behind the addresses
    (v2(0x21, 0x21, V6), "2001:db8::1", 40_000),
    (v2(0x20, 0x00, b""), None, None),  # LOCAL: a health check
    (v2(0x20, 0x11, V4), None, None),
    (v2(0x21, 0x12, V4), None, None),  # UDP
    (v2(0x21, 0x31, bytes(216)), None, None),  # a UNIX socket
    (v2(0x21, 0x11, V4[:-1]), None, None),
]


@pytest.mark.parametrize(("header", "ip", "port"), WHOLE)
def test_a_whole_header_names_the_client_or_nobody(header: bytes, ip: str | None, port: int | None) -> None:
    assert read_proxy_header(header + b"EHLO x\r\n") == ProxyHeader(len(header), ip, port)


@pytest.mark.parametrize("header", [header for header, _, _ in WHOLE])
def test_a_header_cut_anywhere_needs_more(header: bytes) -> None:
    for end in range(len(header)):
        assert isinstance(read_proxy_header(header[:end]), NeedMore)


@pytest.mark.parametrize(
    "data", [b"EHLO x\r\n", b"PROXX", b"proxy TCP4", b"\r\nQUIT\r\n", b"\x16\x03\x01", b"P "]
)
def test_anything_else_is_no_header(data: bytes) -> None:
    assert read_proxy_header(data) is None


def test_a_line_over_the_limit_is_no_header() -> None:
    line = b"PROXY UNKNOWN "
    longest = line + b"x" * (V1_LINE_LIMIT_BYTES - len(line) - 2) + b"\r\n"
    assert read_proxy_header(longest) == ProxyHeader(V1_LINE_LIMIT_BYTES, None, None)
    assert read_proxy_header(line + b"x" * (V1_LINE_LIMIT_BYTES - len(line) - 1) + b"\r\n") is None
    assert read_proxy_header(line + b"x" * 10_000) is None


@given(
    st.sampled_from([b"", b"PROXY TCP4 ", b"PROXY TCP6 ", V2_SIGNATURE, V2_SIGNATURE + b"\x21\x11"]),
    st.binary(),
)
def test_nothing_raises(start: bytes, rest: bytes) -> None:
    header = read_proxy_header(start + rest)
    assert header is None or isinstance(header, NeedMore) or header.length > 0
