"""The eBPF probe against tcpdump and tshark, on real traffic in network namespaces."""

import json
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from probes.ebpf.probe import EbpfProbe
from probes.probe import DropSite, Verdict
from probes.segment import ACK, SYN, Segment
from tests.lab.network import INTERFACE, Namespace, Network, server_address
from tests.probes.cross_check import (
    OTHER_PORT,
    PORT,
    by_tshark,
    count_by_tshark,
    dumped,
    in_order,
    recorded,
    timeless,
)
from tests.probes.ebpf.odd_packets import (
    hostile_frame,
    ip_packet,
    open_tun,
    segment_bytes,
    send_fragmented,
    send_frames,
)
from tests.probes.ebpf.tagging import tagged
from tests.probes.second_cable import SECOND, SECOND_ADDRESS, second_cable
from tests.probes.workload import CONNECTIONS, converse

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets and namespaces need root"),
]

WholeEbpfProbe = partial(EbpfProbe, appetite=False)
"""Here every packet is looked at, needed or not; what is left out of them is test_appetite's."""

# Chosen because tcpdump and the filter see a packet microseconds apart, and the machine may be busy.
TOLERANCE_NS = 100_000_000


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(addresses=2) as network:
        yield network


@pytest.fixture
def slow_network() -> Iterator[Network]:
    """Where the kernel cuts segments itself, as they are on a cable."""
    with Network(addresses=2, offload=False) as network:
        yield network


def received_frames(namespace: Namespace) -> int:
    shown = json.loads(namespace.run(["ip", "-j", "-s", "link", "show", INTERFACE]).stdout)
    return int(shown[0]["stats64"]["rx"]["packets"])


def bpftool(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["bpftool", "-j", *arguments], capture_output=True, check=False)


def assert_same(seen: list[Segment], expected: list[Segment]) -> None:
    assert len(seen) == len(expected) > 0
    for mine, theirs in zip(timeless(seen), timeless(expected), strict=True):
        assert mine == theirs
    for mine, theirs in zip(in_order(seen), in_order(expected), strict=True):
        assert abs(mine.at_ns - theirs.at_ns) < TOLERANCE_NS


@pytest.mark.parametrize("family", [4, 6])
def test_every_segment_equals_what_tcpdump_saw(network: Network, tmp_path: Path, family: int) -> None:
    with (
        dumped(network.server, INTERFACE, tmp_path / "dump") as dump,
        recorded(network.server, [INTERFACE], WholeEbpfProbe) as recording,
    ):
        converse(network.server, network.client, server_address(1, family))
        # Long enough for the sender to reach the longest segments that the kernel makes.
        converse(network.server, network.client, server_address(1, family), connections=1, sizes=(3_000_017,))
        converse(network.server, network.client, server_address(1, family), port=OTHER_PORT, connections=13)
    assert_same(recording.segments, by_tshark(dump))
    assert max(segment.length for segment in recording.segments) > 60_000
    assert recording.counts.seen[Verdict.SEGMENT] == len(recording.segments)
    assert recording.counts.seen[Verdict.OTHER_PORT] == len(by_tshark(dump, port=OTHER_PORT))
    assert recording.counts.dropped.total() == 0


@pytest.mark.parametrize("family", [4, 6])
def test_segments_as_they_are_on_a_cable_are_the_same_too(
    slow_network: Network, tmp_path: Path, family: int
) -> None:
    network = slow_network
    with (
        dumped(network.server, INTERFACE, tmp_path / "dump") as dump,
        recorded(network.server, [INTERFACE], WholeEbpfProbe) as recording,
    ):
        converse(network.server, network.client, server_address(1, family))
    assert_same(recording.segments, by_tshark(dump))
    assert max(segment.length for segment in recording.segments) < 1500


def test_ipv4_options_are_stepped_over(network: Network, tmp_path: Path) -> None:
    # RFC 791 section 3.1: three no-operations and the end of the list; a record route of two addresses.
    for options in (b"\x01\x01\x01\x00", b"\x07\x0b\x04" + bytes(8) + b"\x00"):
        with (
            dumped(network.server, INTERFACE, tmp_path / "dump") as dump,
            recorded(network.server, [INTERFACE], WholeEbpfProbe) as recording,
        ):
            converse(
                network.server,
                network.client,
                server_address(1),
                connections=11,
                options=((socket.IPPROTO_IP, socket.IP_OPTIONS, options),),
            )
        assert_same(recording.segments, by_tshark(dump))


def test_ipv6_extension_headers_are_stepped_over(network: Network, tmp_path: Path) -> None:
    # RFC 8200 section 4.2: a header of 8 bytes that holds padding, and one of 16 with an option for
    # experiments (RFC 4727 section 2.2), which is skipped.
    short, long = b"\x00\x00\x01\x04" + bytes(4), b"\x00\x01\x1e\x0c" + b"\xff" * 12
    with (
        dumped(network.server, INTERFACE, tmp_path / "dump") as dump,
        recorded(network.server, [INTERFACE], WholeEbpfProbe) as recording,
    ):
        converse(
            network.server,
            network.client,
            server_address(1, 6),
            options=(
                (socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, long),
                (socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, short),
            ),
        )
    assert_same(recording.segments, by_tshark(dump))
    assert count_by_tshark(dump, "ipv6.hopopts && ipv6.dstopts") > CONNECTIONS


@pytest.mark.parametrize("tags", [pytest.param(1, marks=pytest.mark.thorough), 2])
@pytest.mark.parametrize("offload", ["on", pytest.param("off", marks=pytest.mark.thorough)])
def test_vlan_tags_are_stepped_over(network: Network, tmp_path: Path, tags: int, offload: str) -> None:
    """With offload the kernel keeps the outer tag beside the packet, without it writes it in."""
    for namespace in (network.server, network.client):
        arguments = ["txvlan", offload, "tx-vlan-stag-hw-insert", offload]
        namespace.run(["ethtool", "-K", INTERFACE, *arguments])
    # Chosen because a veth drops frames that exceed its MTU by more than one tag.
    largest = (socket.IPPROTO_TCP, socket.TCP_MAXSEG, struct.pack("i", 1300))
    with (
        tagged([network.server, network.client], INTERFACE, tags, tmp_path),
        dumped(network.server, INTERFACE, tmp_path / "dump") as dump,
        recorded(network.server, [INTERFACE], WholeEbpfProbe) as recording,
    ):
        for family in (4, 6):
            converse(network.server, network.client, server_address(1, family), options=(largest,))
    assert_same(recording.segments, by_tshark(dump))
    shown = "ieee8021ad && vlan" if tags == 2 else "vlan"
    for network_layer in ("ip", "ipv6"):
        for one_way in ("src", "dst"):
            wanted = f"{network_layer} && tcp.{one_way}port == {PORT} && {shown}"
            assert count_by_tshark(dump, wanted) > CONNECTIONS


def test_fragments_are_put_together(network: Network, tmp_path: Path) -> None:
    datagrams = 17
    with (
        dumped(network.server, INTERFACE, tmp_path / "dump") as dump,
        recorded(network.server, [INTERFACE], WholeEbpfProbe) as recording,
        network.client.threads(1) as clients,
    ):
        for family in (4, 6):
            clients.submit(send_fragmented, server_address(1, family), datagrams).result()
    # The server resets what it knows nothing of.
    whole = [segment for segment in recording.segments if segment.destination_port == PORT]
    assert_same(recording.segments, by_tshark(dump))
    assert len(whole) == 2 * datagrams
    assert {segment.length for segment in whole} == set(range(3000, 3000 + datagrams * 400, 400))
    assert recording.counts.seen[Verdict.FRAGMENT] > 2 * datagrams * 2
    assert recording.counts.seen[Verdict.SEGMENT] == len(recording.segments)


def test_loopback_is_seen_once(network: Network, tmp_path: Path) -> None:
    with (
        dumped(network.server, "lo", tmp_path / "dump") as dump,
        recorded(network.server, ["lo"], WholeEbpfProbe) as recording,
    ):
        converse(network.server, network.server, "127.0.0.1")
        converse(network.server, network.server, "::1")
    assert_same(recording.segments, by_tshark(dump))
    syns = [segment for segment in recording.segments if segment.flags & (SYN | ACK) == SYN]
    assert len(syns) == 2 * CONNECTIONS


def test_any_sees_every_interface_and_those_to_come(network: Network, tmp_path: Path) -> None:
    with (
        dumped(network.server, "any", tmp_path / "dump") as dump,
        recorded(network.server, ["any"], WholeEbpfProbe) as recording,
    ):
        converse(network.server, network.server, "127.0.0.1", connections=11)
        converse(network.server, network.client, server_address(1), connections=13)
        second_cable(network)
        converse(network.server, network.client, SECOND_ADDRESS, connections=17)
        network.server.run(["ip", "link", "delete", SECOND])
        converse(network.server, network.client, server_address(1, 6), connections=19)
        assert recording.probe.interfaces_up() == {"any": True}
    assert_same(recording.segments, by_tshark(dump))
    syns = [segment for segment in recording.segments if segment.flags & (SYN | ACK) == SYN]
    assert len(syns) == 11 + 13 + 17 + 19


def test_two_interfaces_are_seen_and_no_third(network: Network, tmp_path: Path) -> None:
    second_cable(network)
    with (
        dumped(network.server, INTERFACE, tmp_path / "first") as first,
        dumped(network.server, SECOND, tmp_path / "second") as second,
        recorded(network.server, [INTERFACE, SECOND, INTERFACE], WholeEbpfProbe) as recording,
    ):
        converse(network.server, network.client, server_address(1), connections=11)
        converse(network.server, network.client, SECOND_ADDRESS, connections=13)
        converse(network.server, network.server, "127.0.0.1", connections=5)
        assert recording.probe.interfaces_up() == {INTERFACE: True, SECOND: True}
    assert_same(recording.segments, by_tshark(first) + by_tshark(second))


def test_an_interface_that_comes_back_is_captured_again(network: Network) -> None:
    second_cable(network)
    with recorded(network.server, [INTERFACE, SECOND], WholeEbpfProbe) as recording:

        def syns() -> int:
            return sum(segment.flags & (SYN | ACK) == SYN for segment in recording.segments)

        converse(network.server, network.client, SECOND_ADDRESS, connections=5)
        network.server.run(["ip", "link", "delete", SECOND])
        recording.await_up({INTERFACE: True, SECOND: False})
        converse(network.server, network.client, server_address(1), connections=7)
        second_cable(network)
        recording.await_up({INTERFACE: True, SECOND: True})
        converse(network.server, network.client, SECOND_ADDRESS, connections=11)
        network.server.run(["ip", "link", "set", SECOND, "down"])
        recording.await_up({INTERFACE: True, SECOND: False})
        network.server.run(["ip", "link", "set", SECOND, "up"])
        recording.await_up({INTERFACE: True, SECOND: True})
        converse(network.server, network.client, SECOND_ADDRESS, connections=13)
    assert syns() == 5 + 7 + 11 + 13


def test_a_device_without_link_header_is_understood(network: Network, tmp_path: Path) -> None:
    sent = [
        ip_packet(address, segment_bytes(sequence, bytes([sequence]) * sequence))
        for address in (server_address(1), server_address(1, 6))
        for sequence in range(1, 18)
    ]
    with network.server.threads(1) as threads, threads.submit(open_tun, "tun0").result() as tun:
        network.server.run(["ip", "link", "set", "tun0", "up"])
        with (
            dumped(network.server, "tun0", tmp_path / "dump") as dump,
            recorded(network.server, ["tun0"], WholeEbpfProbe) as recording,
        ):
            for packet in sent:
                tun.write(packet)
    assert len(recording.segments) == len(sent)
    assert_same(recording.segments, by_tshark(dump))


def test_a_full_ring_buffer_is_counted(network: Network, tmp_path: Path) -> None:
    small = partial(WholeEbpfProbe, ring_bytes=65536)
    with (
        dumped(network.server, INTERFACE, tmp_path / "dump") as dump,
        recorded(network.server, [INTERFACE], small, hold=True) as recording,
    ):
        converse(network.server, network.client, server_address(1))
    counts = recording.counts
    expected = by_tshark(dump)
    assert 0 < counts.seen[Verdict.SEGMENT] == len(recording.segments) < len(expected)
    assert counts.seen[Verdict.SEGMENT] + counts.dropped[DropSite.RING_BUFFER] == len(expected)
    assert not Counter(timeless(recording.segments)) - Counter(timeless(expected))


def test_hostile_packets_are_counted_and_harm_nobody(network: Network) -> None:
    """Real frames with bytes overwritten, cut and lengthened: each is counted as something, once."""
    chance = random.Random(997)
    frames = [hostile_frame(chance, number) for number in range(997)]
    with recorded(network.server, [INTERFACE], WholeEbpfProbe) as recording:
        before = received_frames(network.server)
        with network.client.threads(1) as clients:
            clients.submit(send_frames, frames).result()
        after = received_frames(network.server)
        converse(network.server, network.client, server_address(1), connections=3)
    seen = recording.counts.seen
    assert after - before >= len(frames)
    assert seen[Verdict.MALFORMED] > 50
    assert seen[Verdict.NOT_TCP] > 20
    assert seen[Verdict.OTHER_PORT] > 20
    assert seen[Verdict.SEGMENT] == len(recording.segments) > 50
    assert all(len(segment.payload) <= segment.length for segment in recording.segments)
    assert recording.counts.seen.total() >= len(frames)


def test_nothing_is_left_behind(network: Network) -> None:
    with recorded(network.server, [INTERFACE], WholeEbpfProbe) as recording:
        assert isinstance(recording.probe, EbpfProbe)
        program = recording.probe._program
        info = Path(f"/proc/self/fdinfo/{program.descriptor}").read_text()
        identity = next(line.split()[1] for line in info.splitlines() if line.startswith("prog_id:"))
        attached = json.loads(bpftool("prog", "show", "id", identity).stdout)
        (table,) = attached["map_ids"]
        value = json.loads(bpftool("map", "lookup", "id", str(table), "key", "0", "0", "0", "0").stdout)
        whole = str(int.from_bytes((int(byte, 16) for byte in value["value"]), sys.byteorder))
        shown = json.loads(bpftool("prog", "show", "id", whole).stdout)
        descriptors = len(os.listdir("/proc/self/fd"))
    assert shown["type"] == attached["type"] == "socket_filter"
    assert len(shown["map_ids"]) == 3
    assert len(os.listdir("/proc/self/fd")) < descriptors
    deadline = time.monotonic() + 3  # the kernel frees after a grace period
    left = {"prog": [identity, whole], "map": [table, *shown["map_ids"]]}
    for kind, identities in left.items():
        for number in identities:
            while bpftool(kind, "show", "id", str(number)).returncode == 0:
                assert time.monotonic() < deadline, f"{kind} {number} is left"
                time.sleep(0.05)


def test_of_a_segment_beyond_64_kb_the_length_is_right_and_its_beginning_captured(network: Network) -> None:
    """BIG TCP: the length field of the IP header can't hold it, and is 0."""
    for namespace in (network.server, network.client):
        sizes = ["gso_max_size", "180000", "gro_max_size", "180000"]
        namespace.run(["ip", "link", "set", INTERFACE, *sizes])
    with recorded(network.server, [INTERFACE], WholeEbpfProbe) as recording:
        converse(network.server, network.client, server_address(1, 6), connections=1, sizes=(6_000_011,))
    big = [segment for segment in recording.segments if segment.length > 65_536]
    assert big
    assert {len(segment.payload) for segment in big} == {65_536}
    syn, *sent = [segment for segment in recording.segments if segment.destination_port == PORT]
    with_payload = [segment for segment in sent if segment.length]
    reached = 0
    for start, length in sorted(
        ((segment.sequence - syn.sequence - 1) % 2**32, segment.length) for segment in with_payload
    ):
        assert start <= reached
        reached = max(reached, start + length)
    assert reached == 6_000_011
