"""A longer capture made of a short one: `python -m tests.bench.copies FILE COPIES > LONGER`.

Copies of the whole come one after the other. In each of them a client has an address of its own, so that its
sessions are sessions of their own; what stands in the packets is otherwise the same, checksums included.
Those are wrong then: no reader that is measured looks at them.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.endurance.multiplier import (
    FILE_HEADER_BYTES,
    FIRST_COPY,
    MOST_COPIES,
    Packet,
    ends_of,
    packets_in,
)

# Chosen longer than a reader waits for stragglers of a session that is over.
PAUSE_US: Final = 10_000_000


def copied(capture: bytes, copies: int) -> Iterator[bytes]:
    """A whole pcap file, in pieces: its header, then each copy."""
    if copies > MOST_COPIES:
        raise ValueError(f"at most {MOST_COPIES} copies have addresses of their own")
    yield capture[:FILE_HEADER_BYTES]
    packets = list(packets_in(capture))
    if not packets:
        return
    copy_at = [ends[2] if (ends := ends_of(packet.data)) else None for packet in packets]
    length_us = max(packet.at_us for packet in packets) - min(packet.at_us for packet in packets) + PAUSE_US
    for copy in range(copies):
        mark = bytes((FIRST_COPY + copy,))
        pieces = []
        for packet, at in zip(packets, copy_at, strict=True):
            data = packet.data if at is None else packet.data[:at] + mark + packet.data[at + 1 :]
            pieces.append(Packet(packet.at_us + copy * length_us, data).in_file())
        yield b"".join(pieces)


def write_copies(capture: bytes, copies: int, path: Path) -> None:
    with path.open("wb") as file:
        for piece in copied(capture, copies):
            file.write(piece)


def main() -> None:
    for piece in copied(Path(sys.argv[1]).read_bytes(), int(sys.argv[2])):
        sys.stdout.buffer.write(piece)


if __name__ == "__main__":
    main()
