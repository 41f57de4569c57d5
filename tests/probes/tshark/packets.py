"""Packets made by hand, and files to hold them."""

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from probes.frames import ETHERNET

IPV4: Final = 0x0800
IPV6: Final = 0x86DD

CLIENT: Final = bytes((10, 0, 0, 1))
SERVER: Final = bytes((10, 0, 0, 2))
CLIENT6: Final = bytes.fromhex("fd77") + bytes(13) + b"\1"
SERVER6: Final = bytes.fromhex("fd77") + bytes(13) + b"\2"

LINE: Final = b"EHLO client.example\r\n"


class Frame(NamedTuple):
    """As it stands in a capture file."""

    data: bytes
    wire_length: int
    link_type: int = ETHERNET
    at_ns: int | None = None
    """None for a second after the last one's."""


def tcp(
    payload: bytes = LINE,
    *,
    source: int = 40_000,
    destination: int = 25,
    sequence: int = 1000,
    flags: int = 0x18,
    offset: int = 5,
    options: bytes = b"",
) -> bytes:
    """RFC 9293 section 3.1. `flags`: with the reserved ones above them."""
    words = (offset + len(options) // 4) << 12 | flags
    header = struct.pack("!HHIIHHHH", source, destination, sequence, 2000, words, 1000, 0, 0)
    return header + options + payload


def udp(payload: bytes, port: int, source: int = 5555) -> bytes:
    return struct.pack("!HHHH", source, port, 8 + len(payload), 0) + payload


def ipv4(
    payload: bytes,
    *,
    source: bytes = CLIENT,
    destination: bytes = SERVER,
    protocol: int = 6,
    identification: int = 1,
    fragment: int = 0,
    total: int | None = None,
    options: bytes = b"",
    first: int | None = None,
) -> bytes:
    """RFC 791 section 3.1. `fragment`: flags and offset; `first`: the header's first byte."""
    words = 5 + len(options) // 4
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | words if first is None else first,
        0,
        words * 4 + len(payload) if total is None else total,
        identification,
        fragment,
        64,
        protocol,
        0,
        source,
        destination,
    )
    return header + options + payload


def ipv6(
    payload: bytes,
    *,
    source: bytes = CLIENT6,
    destination: bytes = SERVER6,
    following: int = 6,
    length: int | None = None,
) -> bytes:
    """RFC 8200 section 3."""
    size = len(payload) if length is None else length
    return struct.pack("!IHBB16s16s", 6 << 28, size, following, 64, source, destination) + payload


def ethernet(packet: bytes, ethertype: int | None = None) -> bytes:
    if ethertype is None:
        ethertype = IPV4 if packet[0] >> 4 == 4 else IPV6
    return bytes.fromhex("020000000001020000000002") + struct.pack("!H", ethertype) + packet


def whole(data: bytes, link_type: int = ETHERNET) -> Frame:
    return Frame(data, len(data), link_type)


def cut(data: bytes, size: int, link_type: int = ETHERNET) -> Frame:
    """By the snap length."""
    return Frame(data[:size], len(data), link_type)


def fragments(packet: bytes, size: int, identification: int = 1) -> list[Frame]:
    """Of a packet without options or extension headers (RFC 791 section 3.2, RFC 8200 section 4.5)."""
    is_ipv4 = packet[0] >> 4 == 4
    payload = packet[20:] if is_ipv4 else packet[40:]
    frames = []
    for start in range(0, len(payload), size):
        piece = payload[start : start + size]
        more = start + size < len(payload)
        if is_ipv4:
            fragment = start // 8 | (0x2000 if more else 0)
            one = ipv4(
                piece,
                source=packet[12:16],
                destination=packet[16:20],
                identification=identification,
                fragment=fragment,
            )
        else:
            header = struct.pack("!BBHI", packet[6], 0, start | more, identification)
            one = ipv6(header + piece, source=packet[8:24], destination=packet[24:40], following=44)
        frames.append(whole(ethernet(one)))
    return frames


def at(at_ns: int, frames: Iterable[Frame], step_ns: int = 0) -> list[Frame]:
    """The frames at this time, and on."""
    return [frame._replace(at_ns=at_ns + number * step_ns) for number, frame in enumerate(frames)]


FIRST_NS: Final = 1_764_000_000 * 10**9


def timed(frames: Iterable[Frame]) -> list[tuple[int, Frame]]:
    """Each with its time."""
    timed_frames = []
    now = FIRST_NS
    for frame in frames:
        now = now + 10**9 if frame.at_ns is None else frame.at_ns
        timed_frames.append((now, frame))
    return timed_frames


def section(order: str = "<") -> bytes:
    return struct.pack(order + "IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)


def interface(link_type: int, order: str = "<", *, snap_length: int = 0, name: bytes = b"") -> bytes:
    """With nanoseconds."""
    options = struct.pack(order + "HHB3x", 9, 1, 9)
    if name:
        options += struct.pack(order + "HH", 2, len(name)) + name + bytes(-len(name) % 4)
    options += bytes(4)
    size = 20 + len(options)
    head = struct.pack(order + "IIHHI", 1, size, link_type, 0, snap_length)
    return head + options + struct.pack(order + "I", size)


def enhanced_packet(
    at_ns: int, data: bytes, wire_length: int, number: int = 0, order: str = "<", options: bytes = b""
) -> bytes:
    padded = data + bytes(-len(data) % 4) + options
    size = 32 + len(padded)
    head = struct.pack(order + "7I", 6, size, number, at_ns >> 32, at_ns & 0xFFFFFFFF, len(data), wire_length)
    return head + padded + struct.pack(order + "I", size)


def pcapng(frames: Sequence[Frame], order: str = "<") -> bytes:
    """With an interface for each link type."""
    link_types = list(dict.fromkeys(frame.link_type for frame in frames))
    blocks = [section(order), *(interface(link_type, order) for link_type in link_types)]
    for at_ns, frame in timed(frames):
        number = link_types.index(frame.link_type)
        blocks.append(enhanced_packet(at_ns, frame.data, frame.wire_length, number, order))
    return b"".join(blocks)


def pcap(frames: Sequence[Frame], order: str = "<", *, is_nano: bool = False) -> bytes:
    """Of the first frame's link type."""
    magic = 0xA1B23C4D if is_nano else 0xA1B2C3D4
    blocks = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262_144, frames[0].link_type)]
    for at_ns, frame in timed(frames):
        seconds, rest = divmod(at_ns, 10**9)
        fraction = rest if is_nano else rest // 1000
        blocks.append(struct.pack(order + "IIII", seconds, fraction, len(frame.data), frame.wire_length))
        blocks.append(frame.data)
    return b"".join(blocks)
