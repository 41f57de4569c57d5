"""pcapng of dumpcap and editcap, taken apart and given to tshark again."""

import os
import re
import signal
import socket
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.tshark.blocks import SECTION_HEADER, BlockReader, Interfaces, NotPcapng
from tests.probes.tshark.packets import enhanced_packet, interface, section
from tests.segments import capture_path

ETHERNET_BLOCK = interface(1)
SLL_BLOCK = interface(113)
NAMED_BLOCK = interface(1, name=b"eth1")


def block(kind: int, contents: bytes) -> bytes:
    size = struct.pack("=I", 12 + len(contents))
    return struct.pack("=I", kind) + size + contents + size


def statistics(number: int, **options: int) -> bytes:
    """Its options are counters of 64 bits, named by their codes: c5 is isb_ifdrop."""
    contents = struct.pack("=III", number, 0, 0)
    for code, value in options.items():
        contents += struct.pack("=HHQ", int(code[1:]), 8, value)
    return block(5, contents + bytes(4))


def packet(number: int = 0, data: bytes = b"packet") -> bytes:
    return enhanced_packet(10**18, data, 60, number)


NAME_RESOLUTION = block(4, bytes(4))
SIMPLE_PACKET = block(3, struct.pack("=I", 4) + b"data")
CUSTOM = block(0x00000BAD, struct.pack("=I", 32473) + b"anything")
FOREIGN = (NAME_RESOLUTION, SIMPLE_PACKET, CUSTOM, block(0x0000000A, bytes(8)), block(0x80000001, b""))


def numbers(frames: list[bytes]) -> list[int]:
    """Of the interfaces."""
    return [struct.unpack_from("=I", frame, 8)[0] for frame in frames]


def read_all(data: bytes, interfaces: Interfaces | None = None) -> list[bytes]:
    return BlockReader(interfaces or Interfaces()).read(data)


STREAM = b"".join(
    (
        section(),
        NAME_RESOLUTION,
        ETHERNET_BLOCK,
        packet(0, b"one"),
        SLL_BLOCK,
        CUSTOM,
        packet(1, b"two" * 100),
        packet(0, b""),
        statistics(0, c4=9, c5=3),
        section(),
        SLL_BLOCK,
        packet(0, b"four"),
        statistics(0, c5=4),
    )
)


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_split_gives_the_same_frames(cuts: list[int]) -> None:
    interfaces = Interfaces()
    reader = BlockReader(interfaces)
    frames: list[bytes] = []
    for start, end in pairwise((0, *sorted(cuts), len(STREAM))):
        frames += reader.read(STREAM[start:end])
    assert frames == [packet(0, b"one"), packet(1, b"two" * 100), packet(0, b""), packet(1, b"four")]
    assert interfaces.descriptions == [ETHERNET_BLOCK, SLL_BLOCK]
    assert reader.dropped == 7


def test_single_bytes_are_pieces_too() -> None:
    reader = BlockReader(Interfaces())
    frames = [frame for byte in STREAM for frame in reader.read(bytes((byte,)))]
    assert frames == read_all(STREAM)
    assert len(frames) == 4


def test_interfaces_of_several_sources_are_numbered_as_they_come() -> None:
    interfaces = Interfaces()
    first, second = BlockReader(interfaces), BlockReader(interfaces)
    first.read(section() + ETHERNET_BLOCK)
    assert numbers(second.read(section() + SLL_BLOCK + packet(0, b"b"))) == [1]
    assert numbers(first.read(NAMED_BLOCK + packet(1, b"a") + packet(0, b"c"))) == [2, 0]
    assert interfaces.descriptions == [ETHERNET_BLOCK, SLL_BLOCK, NAMED_BLOCK]


def test_a_number_is_all_that_changes_in_a_frame() -> None:
    interfaces = Interfaces()
    read_all(section() + ETHERNET_BLOCK, interfaces)
    commented = enhanced_packet(10**18, b"odd", 60, options=struct.pack("=HH4sI", 1, 4, b"note", 0))
    (frame,) = read_all(section() + SLL_BLOCK + commented, interfaces)
    assert (frame[:8], frame[8:12], frame[12:]) == (commented[:8], struct.pack("=I", 1), commented[12:])


def test_the_same_description_has_the_same_number_whoever_gives_it() -> None:
    """A dumpcap that takes over describes what the last one did."""
    interfaces = Interfaces()
    for _ in range(3):
        frames = read_all(section() + SLL_BLOCK + ETHERNET_BLOCK + packet(0) + packet(1), interfaces)
        assert numbers(frames) == [0, 1]
    assert len(interfaces.descriptions) == 2


def test_a_section_begins_to_number_anew() -> None:
    interfaces = Interfaces()
    reader = BlockReader(interfaces)
    assert numbers(reader.read(section() + ETHERNET_BLOCK + packet(0))) == [0]
    assert numbers(reader.read(section() + SLL_BLOCK + packet(0))) == [1]
    with pytest.raises(NotPcapng):
        reader.read(section() + packet(0))


def test_each_interface_has_its_own_clock() -> None:
    microseconds = block(1, struct.pack("=HHI", 1, 0, 0))
    reader = BlockReader(Interfaces())
    reader.read(section() + ETHERNET_BLOCK + packet(0) + microseconds)
    assert reader.latest_ns == 10**18
    reader.read(enhanced_packet(10**15 + 1, b"packet", 60, 1))
    assert reader.latest_ns == 10**18 + 1_000
    reader.read(packet(0))
    assert reader.latest_ns == 10**18


def test_it_has_begun_when_an_interface_is_described() -> None:
    reader = BlockReader(Interfaces())
    reader.read(section() + NAME_RESOLUTION + ETHERNET_BLOCK[:-1])
    assert not reader.has_begun
    reader.read(ETHERNET_BLOCK[-1:])
    assert reader.has_begun


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: hex(struct.unpack_from("=I", foreign)[0]))
def test_foreign_blocks_are_left_out(foreign: bytes) -> None:
    frames = read_all(section() + foreign + ETHERNET_BLOCK + foreign + packet() + foreign)
    assert frames == [packet()]


@pytest.mark.parametrize(
    "damaged",
    [
        block(4, b"")[:4] + struct.pack("=I", 0),
        block(4, b"")[:4] + struct.pack("=I", 8),
        block(4, b"")[:4] + struct.pack("=I", 13) + bytes(9),
        block(4, b"")[:4] + struct.pack("=I", 16 * 2**20 + 4),
        block(4, b"")[:4] + b"\xff" * 8,
        section(">"),  # another byte order
        block(6, bytes(16)),  # too short for a packet
        block(6, struct.pack("=5I", 0, 0, 0, 9, 9) + bytes(8)),  # and for this one's bytes
        block(6, struct.pack("=5I", 0, 0, 0, 2**32 - 1, 9) + bytes(8)),
        block(1, bytes(4)),
        block(5, bytes(8)),
        packet(1),
        packet(2**32 - 1),
    ],
)
def test_damage_is_no_pcapng(damaged: bytes) -> None:
    with pytest.raises(NotPcapng):
        read_all(section() + ETHERNET_BLOCK + packet() + damaged)


def test_a_packet_without_an_interface_is_no_pcapng() -> None:
    with pytest.raises(NotPcapng):
        read_all(section() + packet())


@given(
    changes=st.lists(st.tuples(st.integers(0, len(STREAM) - 1), st.integers(0, 255)), min_size=1, max_size=5)
)
def test_no_damage_raises_anything_else(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(STREAM)
    for position, value in changes:
        damaged[position] = value
    interfaces = Interfaces()
    try:
        frames = read_all(bytes(damaged), interfaces)
    except NotPcapng:
        return
    for frame in frames:
        size, number, captured = struct.unpack_from("=4xII8xI", frame)
        assert size == len(frame) >= 32 + captured
        assert number < len(interfaces.descriptions)


# What was dropped


@pytest.mark.parametrize(
    ("contents", "dropped"),
    [
        (statistics(0, c4=100, c5=7, c7=9), 7),
        (statistics(0, c5=2**64 - 1), 2**64 - 1),
        (statistics(0, c4=100), 0),
        (statistics(0), 0),
        # After a comment of five bytes, which is padded.
        (block(5, bytes(12) + struct.pack("=HH5s3xHHQI", 1, 5, b"hello", 5, 8, 12, 0)), 12),
        # Of a length that the option never has, and beyond the block.
        (block(5, bytes(12) + struct.pack("=HHII", 5, 4, 12, 0)), 0),
        (block(5, bytes(12) + struct.pack("=HHI", 5, 8, 12)), 0),
        (block(5, bytes(12) + struct.pack("=HH", 4, 60_000)), 0),
    ],
)
def test_statistics_say_what_was_dropped(contents: bytes, dropped: int) -> None:
    reader = BlockReader(Interfaces())
    assert reader.read(section() + ETHERNET_BLOCK + contents) == []
    assert reader.dropped == dropped


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="dumpcap needs the privilege to capture")
def test_a_real_dumpcap_says_what_was_dropped() -> None:
    """It is stopped while more comes than its buffer of one megabyte holds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        port = receiver.getsockname()[1]
        command = ["dumpcap", "-p", "-B", "1", "-i", "lo", "-f", f"udp dst port {port}", "-w", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as dumpcap:
            assert dumpcap.stdout is not None
            reader = BlockReader(Interfaces())
            while not reader.has_begun:
                reader.read(os.read(dumpcap.stdout.fileno(), 65_536))
            dumpcap.send_signal(signal.SIGSTOP)
            for _ in range(2000):
                receiver.sendto(bytes(1400), ("127.0.0.1", port))
            dumpcap.send_signal(signal.SIGCONT)
            dumpcap.terminate()
            output, said = dumpcap.communicate(timeout=60)
    reader.read(output)
    # Packets received/dropped on interface 'Loopback: lo': 1045/955 (pcap:955/dumpcap:0/...
    counted = re.search(rb": \d+/(\d+) \(", said)
    assert counted is not None
    assert reader.dropped == int(counted[1]) > 0


# Real files


def tshark_rows(data: bytes | None, path: Path | None = None) -> bytes:
    """What tells frames apart."""
    fields = ("frame.time_epoch", "frame.protocols", "frame.len", "frame.cap_len", "ip.src", "ipv6.src")
    command = ["tshark", "-n", "-r", "-" if path is None else str(path), "-T", "fields"]
    for name in (*fields, "tcp.seq_raw", "tcp.payload"):
        command += ["-e", name]
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


def editcap(path: Path) -> bytes:
    return subprocess.run(["editcap", str(path), "-"], check=True, capture_output=True).stdout


def test_what_editcap_writes_comes_out_of_tshark_as_the_same_frames(tmp_path: Path) -> None:
    """Of three files with interfaces of their own, through one section."""
    paths = [capture_path(name) for name in ("plain_single", "anydev_sll", "ipv6")]
    interfaces = Interfaces()
    frames = [frame for path in paths for frame in read_all(editcap(path), interfaces)]
    assert len(interfaces.descriptions) > 1
    expected = b"".join(tshark_rows(None, path) for path in paths)
    assert tshark_rows(SECTION_HEADER + b"".join((*interfaces.descriptions, *frames))) == expected
    assert len(expected.splitlines()) == len(frames)
