"""Hours of mail traffic, made of two seconds of it: `python -m tests.endurance.multiplier SESSIONS > FILE`.

A session of the capture is copied as a whole: all its packets, at the distances that they had or a multiple
of them, from a client address that no other copy of it has. Copies begin one after the other, at a steady
pace. What is no session (ARP, a refused port) goes with the session before it.

Checksums stay those of the original, and are wrong: a tap's are, too, and no probe looks at them.
"""

import itertools
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

import zstandard

from tests.lab.truth import Endpoint

CAPTURE: Final = Path(__file__).parents[1] / "captures" / "mid.pcap.zst"
PORTS: Final = frozenset((25, 465, 587))

# draft-ietf-opsawg-pcap sections 4 and 5: little-endian, microseconds.
FILE_HEADER_BYTES: Final = 24
PACKET_HEADER: Final = struct.Struct("<IIII")
_MAGIC: Final = bytes.fromhex("d4c3b2a1")
_SECOND_US: Final = 1_000_000

# Where things stand in an Ethernet frame without tags: RFC 894, RFC 791 section 3.1, RFC 8200 section 3.
_TYPE: Final = slice(12, 14)
_IPV4: Final = b"\x08\x00"
_IPV6: Final = b"\x86\xdd"
_TCP: Final = 6

# A copy's number takes the place of the second byte of a client's address: 10.77.1.1, 10.100.1.1, 10.101.1.1.
_COPY_BYTE: Final = 1
FIRST_COPY: Final = 100  # chosen beyond the network of the capture's servers, 10.77
MOST_COPIES: Final = 256 - FIRST_COPY


class Frame(NamedTuple):
    at_us: int
    """Since the session began."""
    data: bytes
    copy_at: int | None
    """Where the copy's number stands in it; None in what is no session's."""


class Session(NamedTuple):
    client: Endpoint
    server: Endpoint
    begins_us: int
    """The time stamp of its first packet, since the epoch."""
    frames: list[Frame]


class Capture(NamedTuple):
    file_header: bytes
    sessions: list[Session]
    """In the order in which they begin."""

    def begins_us(self, number: int, sessions: int, seconds: float) -> int:
        """When the session of that number begins, of so many in so many seconds."""
        return self.sessions[0].begins_us + int(number * seconds * _SECOND_US / sessions)


class Packet(NamedTuple):
    at_us: int
    """Since the epoch."""
    data: bytes
    is_mail: bool = True
    """Whether it is of a session."""

    def in_file(self) -> bytes:
        """As it stands in a capture file."""
        length = len(self.data)
        return PACKET_HEADER.pack(*divmod(self.at_us, _SECOND_US), length, length) + self.data


def read_capture(path: Path = CAPTURE) -> Capture:
    """Ethernet without tags, and packets captured whole: `mid` is so."""
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
        whole = reader.read()
    assert whole.startswith(_MAGIC), path
    found: dict[tuple[Endpoint, Endpoint], Session] = {}
    session: Session | None = None
    for packet in packets_in(whole):
        ends = ends_of(packet.data)
        if ends is not None:
            client, server, copy_at = ends
            session = found.setdefault((client, server), Session(client, server, packet.at_us, []))
            session.frames.append(Frame(packet.at_us - session.begins_us, packet.data, copy_at))
        elif session is not None:  # before the first session there is nothing to go with
            session.frames.append(Frame(packet.at_us - session.begins_us, packet.data, None))
    return Capture(whole[:FILE_HEADER_BYTES], list(found.values()))


def packets_in(whole: bytes) -> Iterator[Packet]:
    """Of a whole file."""
    place = FILE_HEADER_BYTES
    while place < len(whole):
        seconds, microseconds, captured, length = PACKET_HEADER.unpack_from(whole, place)
        assert captured == length
        place += PACKET_HEADER.size
        yield Packet(seconds * _SECOND_US + microseconds, whole[place : place + length])
        place += length


def multiplied(
    capture: Capture, sessions: int, *, seconds: float, stretch: int = 1
) -> Iterator[list[Packet]]:
    """So many sessions that begin over so many seconds, in the order of time, some packets at once.

    Each session's own times are stretched, as if its two ends were further from each other.
    """
    assert sessions <= MOST_COPIES * len(capture.sessions)
    pending: list[tuple[int, int, Packet]] = []
    numbers = itertools.count()  # packets of the same microsecond stay in their order
    for number in range(sessions):
        begins_us = capture.begins_us(number, sessions, seconds)
        if pending and pending[0][0] < begins_us:
            pending.sort()
            due = next((place for place, one in enumerate(pending) if one[0] >= begins_us), len(pending))
            yield [packet for _, _, packet in pending[:due]]
            del pending[:due]
        copy, which = divmod(number, len(capture.sessions))
        mark = bytes((FIRST_COPY + copy,))
        for at_us, data, copy_at in capture.sessions[which].frames:
            if copy_at is not None:
                data = data[:copy_at] + mark + data[copy_at + 1 :]  # noqa: PLW2901
            packet = Packet(begins_us + at_us * stretch, data, copy_at is not None)
            pending.append((packet.at_us, next(numbers), packet))
    pending.sort()
    yield [packet for _, _, packet in pending]


def copy_of(client_ip: str) -> tuple[int, str]:
    """Which copy that client belongs to, and its address in the capture."""
    if ":" in client_ip:
        # fd77::1:1 became fd64::1:1.
        group, _, rest = client_ip.partition(":")
        return int(group[2:], 16) - FIRST_COPY, f"fd77:{rest}"
    first, copy, rest = client_ip.split(".", 2)
    return int(copy) - FIRST_COPY, f"{first}.77.{rest}"


def ends_of(frame: bytes) -> tuple[Endpoint, Endpoint, int] | None:
    """Client and server of a session's packet, and where the copy's number goes; None: it is no session's."""
    if frame[_TYPE] == _IPV4 and frame[23] == _TCP:
        family, source, size, ports = socket.AF_INET, 26, 4, 14 + (frame[14] & 0x0F) * 4
    elif frame[_TYPE] == _IPV6 and frame[20] == _TCP:
        family, source, size, ports = socket.AF_INET6, 22, 16, 54
    else:
        return None
    destination = source + size
    source_port, destination_port = struct.unpack_from("!HH", frame, ports)
    sender = socket.inet_ntop(family, frame[source:destination]), source_port
    receiver = socket.inet_ntop(family, frame[destination : destination + size]), destination_port
    if destination_port in PORTS:
        return sender, receiver, source + _COPY_BYTE
    if source_port in PORTS:
        return receiver, sender, destination + _COPY_BYTE
    return None


def write(file: IO[bytes], capture: Capture, packets: Iterator[Sequence[Packet]]) -> int:
    """Returns how many packets were written."""
    written = 0
    file.write(capture.file_header)
    for batch in packets:
        file.write(b"".join([packet.in_file() for packet in batch]))
        written += len(batch)
    return written


def main() -> None:
    sessions = int(sys.argv[1])
    capture = read_capture()
    write(sys.stdout.buffer, capture, multiplied(capture, sessions, seconds=sessions))


if __name__ == "__main__":
    main()
