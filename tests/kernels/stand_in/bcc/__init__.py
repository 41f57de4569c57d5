"""Stands in for bcc in a virtual machine without a compiler: loads what the real bcc compiled elsewhere.

tests.kernels.recorder wrote it down. The programs, the maps and their loading are real. bcc itself is not
tried on that kernel; `make kernels ALL=1` does that.
"""

import ctypes
import errno
import os
import resource
import struct
from contextlib import suppress
from pathlib import Path

from tests.kernels.recording import Recording, key

RECORDINGS = Path("/recordings")
_BPF, _MAP_CREATE, _MAP_UPDATE, _PROGRAM_LOAD = 321, 0, 2, 5  # x86-64; linux/bpf.h
_ATTRIBUTE_BYTES = 120
_LOG_BYTES = 1 << 16
"""For the verifier's words at first; more where they need it."""

_libc = ctypes.CDLL(None, use_errno=True)


def _call(command: int, attributes: bytes) -> int:
    """Raises OSError."""
    try:
        return _call_once(command, attributes)
    except PermissionError:
        # As bcc does: before Linux 5.11 maps and programs are counted by this.
        with suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return _call_once(command, attributes)


def _call_once(command: int, attributes: bytes) -> int:
    given = ctypes.create_string_buffer(attributes, _ATTRIBUTE_BYTES)
    result: int = _libc.syscall(_BPF, command, given, _ATTRIBUTE_BYTES)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _say(words: bytes) -> None:
    """To the descriptor, as libbcc does."""
    os.write(2, words)


class _Function:
    def __init__(self, descriptor: int) -> None:
        self.fd = descriptor


class _Table:
    def __init__(self, descriptor: int) -> None:
        self.map_fd = descriptor

    def __setitem__(self, key: "ctypes._SimpleCData[int]", value: "ctypes._SimpleCData[int]") -> None:
        pointers = ctypes.addressof(key), ctypes.addressof(value)
        _call(_MAP_UPDATE, struct.pack("=I4xQQQ", self.map_fd, *pointers, 0))


class BPF:
    SOCKET_FILTER, KPROBE, TRACEPOINT = 1, 2, 5  # BPF_PROG_TYPE_* of linux/bpf.h

    def __init__(self, text: bytes, cflags: list[str]) -> None:
        file = RECORDINGS / f"{key(text, cflags)}.json"
        if not file.exists():
            raise Exception(f"this was not compiled beforehand: {' '.join(cflags)}")
        recording = Recording.read(file)
        self._programs, self._names = recording.programs, recording.names
        named = {number: name for name, number in self._names.items()}
        self._maps = []
        for number, each in enumerate(recording.maps):
            layout = (each.kind, each.key_bytes, each.value_bytes, each.entries, each.flags)
            try:
                self._maps.append(_call(_MAP_CREATE, struct.pack("=5I", *layout)))
            except OSError as refused:
                name = named.get(number, f"map{number}")
                _say(f"could not open bpf map: {name}, error: {refused.strerror}\n".encode())
                self.cleanup()
                raise Exception("Failed to compile BPF module <text>") from None

    def load_func(self, name: bytes, kind: int) -> _Function:
        code = self._programs[name.decode()]
        instructions = bytearray(code.instructions)
        for at, number in code.maps_at:
            struct.pack_into("=i", instructions, at, self._maps[number])
        given = ctypes.create_string_buffer(bytes(instructions), len(instructions))
        licence = ctypes.create_string_buffer(b"GPL")
        where = ctypes.addressof(given), ctypes.addressof(licence)

        def load(level: int, log: "ctypes.Array[ctypes.c_char] | None") -> int:
            about = (level, len(log), ctypes.addressof(log)) if log is not None else (0, 0, 0)
            return _call(_PROGRAM_LOAD, struct.pack("=IIQQIIQ", kind, len(instructions) // 8, *where, *about))

        try:
            return _Function(load(0, None))
        except OSError as error:
            refused = error
        # As bcc does: once more for the verifier's words, and again where there is no room for all of them.
        size = _LOG_BYTES
        while True:
            log = ctypes.create_string_buffer(size)
            try:
                return _Function(load(1, log))
            except OSError as again:
                if again.errno != errno.ENOSPC:
                    break
            size *= 2
        _say(f"bpf: Failed to load program: {refused.strerror}\n".encode() + log.value + b"\n")
        raise Exception(f"Failed to load BPF program {name!r}: {refused.strerror}")

    def __getitem__(self, name: bytes) -> _Table:
        return _Table(self._maps[self._names[name.decode()]])

    def cleanup(self) -> None:
        for descriptor in self._maps:
            os.close(descriptor)
        self._maps = []
