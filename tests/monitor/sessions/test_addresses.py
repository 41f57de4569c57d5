"""Addresses of packets as text."""

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.sessions.addresses import address_text

_GROUPS = st.lists(st.sampled_from([0, 0, 0, 1, 0x10, 0xFFFF]), min_size=8, max_size=8)


@given(_GROUPS.map(lambda groups: b"".join(group.to_bytes(2, "big") for group in groups)))
@example(ip_address("::ffff:192.0.2.1").packed)
@example(ip_address("::192.0.2.1").packed)
@example(ip_address("::1").packed)
@example(ip_address("2001:db8:0:1::").packed)
def test_an_ipv6_address_is_written_as_python_writes_it(address: bytes) -> None:
    assert address_text(address) == str(ip_address(address))


@pytest.mark.parametrize("text", ["0.0.0.0", "192.0.2.1", "255.255.255.255", "10.77.1.31"])
def test_an_ipv4_address_is_written_with_dots(text: str) -> None:
    assert address_text(ip_address(text).packed) == text
