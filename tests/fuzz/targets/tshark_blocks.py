"""What dumpcap and editcap write, in pieces of any size."""

from collections.abc import Iterator
from random import Random
from struct import pack
from typing import Final
from zlib import crc32

from probes.tshark.blocks import BlockReader, Interfaces, NotPcapng, frame_hash
from tests.fuzz.seeds import captured_frames
from tests.fuzz.targets.capture_file import WORDS as FILE_WORDS
from tests.probes.tshark.packets import Frame, pcapng

MAX_BYTES: Final = 1_500
WORDS: Final = (*FILE_WORDS, pack("<I", 24))


def check(data: bytes) -> object:
    rng = Random(crc32(data))
    whole = _read([data])
    size = rng.choice((1, 5, 33, 400))
    split = _read([data[at : at + size] for at in range(0, len(data), size)])
    # In one piece, what came before the damage goes with it.
    assert split == whole or (not whole[0] and whole[1] == split[1] is False), (split, whole)
    return whole


def _read(pieces: list[bytes]) -> tuple[list[bytes], bool, int, int]:
    interfaces = Interfaces()
    interfaces.number(b"one that was there before")
    reader = BlockReader(interfaces)
    frames: list[bytes] = []
    try:
        for piece in pieces:
            frames += reader.read(piece)
    except NotPcapng:
        return frames, False, 0, 0
    for frame in frames:
        frame_hash(frame)
        assert int.from_bytes(frame[8:12], "little") < len(interfaces.descriptions)
    return frames, True, reader.dropped, reader.latest_ns


def seeds() -> Iterator[bytes]:
    for link_type, frames in captured_frames():
        yield pcapng([Frame(frame[:120], len(frame), link_type) for frame in frames[:6]])[:MAX_BYTES]
