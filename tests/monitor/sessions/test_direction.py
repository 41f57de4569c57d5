"""Whose delivery a session is."""

from ipaddress import ip_network

import pytest

from monitor.sessions.direction import OurAddresses
from monitor.sessions.record import Direction

OURS = OurAddresses(
    [ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")], ["198.51.100.1", "fe80::1%eth0"]
)


@pytest.mark.parametrize(
    ("client", "server", "direction"),
    [
        ("203.0.113.9", "192.0.2.25", Direction.INBOUND),
        ("203.0.113.9", "198.51.100.1", Direction.INBOUND),
        ("192.0.2.25", "203.0.113.9", Direction.OUTBOUND),
        ("2001:db8::1", "2a00::1", Direction.OUTBOUND),
        ("192.0.2.25", "198.51.100.1", Direction.INTERNAL),
        ("fe80::1", "fe80::2", Direction.OUTBOUND),
        ("203.0.113.9", "203.0.113.10", Direction.UNKNOWN),
    ],
)
def test_the_side_that_is_ours_decides(client: str, server: str, direction: Direction) -> None:
    assert OURS.direction(client, server) is direction


def test_who_knows_no_address_of_ours_knows_no_direction() -> None:
    assert OurAddresses().direction("192.0.2.1", "192.0.2.2") is Direction.UNKNOWN


def test_a_network_is_known_however_many_addresses_ask() -> None:
    ours = OurAddresses([ip_network("192.0.2.0/24")])
    strangers = [f"10.0.{number >> 8}.{number & 255}" for number in range(3_000)]
    for _ in range(2):
        assert {ours.direction(stranger, "192.0.2.25") for stranger in strangers} == {Direction.INBOUND}
        assert {ours.direction(stranger, "203.0.113.9") for stranger in strangers} == {Direction.UNKNOWN}


def test_addresses_come_and_go() -> None:
    ours = OurAddresses(hosts=["192.0.2.1"])
    ours.set_hosts(["192.0.2.2"])
    assert ours.direction("203.0.113.9", "192.0.2.2") is Direction.INBOUND
    assert ours.direction("203.0.113.9", "192.0.2.1") is Direction.UNKNOWN
