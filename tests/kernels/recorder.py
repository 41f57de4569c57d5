"""Lets the project's own loader compile everything that it may be asked for, and writes the programs down.

    python -m tests.kernels.recorder FOLDER [TRACEPOINTS]

The loader gets a bcc that compiles, and that writes programs and maps down instead of loading them. So
sources, constants, programs and maps are those of `watch` and `doctor`, and there is no second list of them
here. Without CAP_PERFMON the loader chooses as it does without it anywhere. TRACEPOINTS is a folder with
one file for each other kernel: its description of the TLS tap's tracepoint. Without it the tap is left out.
FOLDER/index.json says which recording is which.
"""

import ctypes
import json
import os
import platform
import socket
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import bcc
import msgspec

from probes.ebpf import loader
from probes.ebpf import program as filter_program
from probes.ebpf.loading import Answer, Build
from probes.ebpf.probe import RING_BYTES
from probes.tls_tap import program as tap_program
from probes.tls_tap.tracing import Tracepoint, this_machine, tracepoint
from tests.kernels.recording import FULL, INDEX, PLAIN, TAP, Code, MapLayout, Recording, key

PORTS: Final = frozenset({25, 465, 587})
_LOAD_64: Final = 0x18  # linux/bpf.h: BPF_LD | BPF_DW | BPF_IMM, two instructions long
_PSEUDO_MAP: Final = 1
_LIBBPF: Final = "libbpf.so.1"
_ANSWER_BYTES: Final = 65_536
_MOST_DESCRIPTORS: Final = 64
_INSTRUCTION: Final = struct.Struct("<BBhi")


class _MapInfo(ctypes.Structure):
    """`struct bpf_map_info`, as far as it is asked for."""

    _fields_ = tuple((name, ctypes.c_uint32) for name in ("kind", "id", "key", "value", "entries", "flags"))


class _Table:
    """A map, to which nothing is written."""

    def __init__(self, descriptor: int) -> None:
        self.map_fd = descriptor

    def __setitem__(self, key: object, value: object) -> None:
        pass


class _NotLoaded:
    """In place of a program. The loader hands descriptors over, so there has to be one."""

    fd = os.open(os.devnull, os.O_RDONLY)


class _Recorder:
    """Stands in for bcc.BPF."""

    SOCKET_FILTER = bcc.BPF.SOCKET_FILTER
    KPROBE = bcc.BPF.KPROBE
    TRACEPOINT = bcc.BPF.TRACEPOINT
    folder: Path
    made: list[str]

    def __init__(self, text: bytes, cflags: list[str]) -> None:
        self._key = key(text, cflags)
        self._bpf = bcc.BPF(text=text, cflags=cflags)
        self._libbpf = ctypes.CDLL(_LIBBPF)
        self._numbers: dict[int, int] = {}
        self._recording = Recording()
        self.made.append(self._key)

    def load_func(self, name: bytes, kind: int) -> _NotLoaded:
        code = bytearray(self._bpf.dump_func(name))
        maps_at = []
        at = 0
        while at < len(code):
            operation, registers, _, value = _INSTRUCTION.unpack_from(code, at)
            if operation == _LOAD_64:
                if registers >> 4 == _PSEUDO_MAP:
                    maps_at.append((at + 4, self._number(value)))
                at += _INSTRUCTION.size
            at += _INSTRUCTION.size
        self._recording.programs[name.decode()] = Code(kind, bytes(code), maps_at)
        self._write()
        return _NotLoaded()

    def __getitem__(self, name: bytes) -> _Table:
        descriptor = self._bpf[name].map_fd
        self._recording.names[name.decode()] = self._number(descriptor)
        self._write()
        return _Table(descriptor)

    def _number(self, descriptor: int) -> int:
        if descriptor not in self._numbers:
            about = _MapInfo()
            size = ctypes.c_uint32(ctypes.sizeof(about))
            if self._libbpf.bpf_obj_get_info_by_fd(descriptor, ctypes.byref(about), ctypes.byref(size)):
                raise OSError(f"the kernel does not tell of the map behind descriptor {descriptor}")
            self._numbers[descriptor] = len(self._recording.maps)
            layout = MapLayout(about.kind, about.key, about.value, about.entries, about.flags)
            self._recording.maps.append(layout)
        return self._numbers[descriptor]

    def _write(self) -> None:
        self._recording.write(self.folder / f"{self._key}.json")


class _AskedError(Exception):
    """Carries what the loader was to be asked for."""


def asked_for(ask: Callable[[], object]) -> Build:
    """What a part of the program would hand to the loader."""

    def take(build: Build) -> None:
        raise _AskedError(build)

    with patch.object(filter_program, "load", take):
        try:
            ask()
        except _AskedError as asked:
            build: Build = asked.args[0]
            return build
    raise AssertionError("nothing was loaded")


def builds(tracepoints: Path | None) -> dict[str, Build]:
    """What is loaded, by what it is called here."""
    made = {
        FULL: asked_for(lambda: filter_program.Program(PORTS, RING_BYTES)),
        PLAIN: asked_for(lambda: filter_program.Program(PORTS, RING_BYTES, appetite=False)),
    }
    if tracepoints is not None:
        where = {file.name: Tracepoint.described("0", file.read_text()) for file in tracepoints.iterdir()}
        where[platform.release()] = tracepoint(*tap_program.RECEIVED)
        for kernel, received in where.items():
            made[f"{TAP}{kernel}"] = tap_program.build(PORTS, this_machine(), received)
    return made


def _load(build: Build) -> None:
    """As `probes.ebpf.loading.load` has it done, but in this process."""
    here, there = socket.socketpair()
    with (
        here,
        patch.object(sys, "argv", ["loader", str(there.detach()), msgspec.json.encode(build).decode()]),
    ):
        loader.main()
        answer, descriptors, _, _ = socket.recv_fds(here, _ANSWER_BYTES, _MOST_DESCRIPTORS)
    for descriptor in descriptors:
        os.close(descriptor)
    said = msgspec.json.decode(answer, type=Answer)
    if said.message:
        raise SystemExit(f"{build.what}: {said.message}; {said.remedy}")


def main() -> int:
    folder, *more = map(Path, sys.argv[1:])
    stand_in: Any = types.ModuleType("bcc")
    stand_in.BPF = _Recorder
    sys.modules["bcc"] = stand_in
    _Recorder.folder = folder
    index: dict[str, list[str]] = {}
    for name, build in builds(more[0] if more else None).items():
        _Recorder.made = index[name] = []
        _load(build)
    (folder / INDEX).write_text(json.dumps(index, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
