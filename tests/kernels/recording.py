"""What the loader had compiled, as a file: for a machine without a compiler."""

import hashlib
from pathlib import Path
from typing import Final, Self

import msgspec

INDEX: Final = "index.json"
FULL, PLAIN, TAP = "full", "plain", "TLS tap "
"""What is recorded; behind the last one stands for which kernel."""


class MapLayout(msgspec.Struct, frozen=True):
    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int


class Code(msgspec.Struct, frozen=True):
    """One program's instructions, as it is before it is loaded."""

    kind: int
    instructions: bytes
    maps_at: list[tuple[int, int]]
    """At which of its bytes which map's descriptor is to stand."""


class Recording(msgspec.Struct):
    """One text with one set of constants."""

    maps: list[MapLayout] = []
    names: dict[str, int] = {}
    """Of the maps that the loader asked for."""
    programs: dict[str, Code] = {}

    @classmethod
    def read(cls, file: Path) -> Self:
        return msgspec.json.decode(file.read_bytes(), type=cls)

    def write(self, file: Path) -> None:
        file.write_bytes(msgspec.json.encode(self))


def key(text: bytes, cflags: list[str]) -> str:
    """Of what is compiled. The same on both machines, since both have the same tree."""
    return hashlib.sha256(b"\0".join([text, *(flag.encode() for flag in cflags)])).hexdigest()[:16]
