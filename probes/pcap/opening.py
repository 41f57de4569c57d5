"""A path or standard input -> the bytes of a capture, uncompressed.

What a file is, its first bytes say, never its name. Everything is read in pieces; nothing is written to disk.
"""

import os
import re
import select
import stat
import sys
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Final

import zstandard

from probes.probe import CaptureFileError

STANDARD_INPUT: Final = "-"

# Chosen because it is what a pipe holds by default.
READ_BYTES: Final = 64 * 1024
# zstd makes at most 128 KiB (RFC 8878 section 3.1.1.2.4) out of a block of 4 bytes, and decompressobj gives
# all that its input makes: this much input is 8 MiB at worst. Less would cost time.
ZSTD_INPUT_BYTES: Final = 256
UNPACKED_BYTES: Final = 2**20  # what gzip gives at once
MEMBER_INPUT_BYTES: Final = 1024
"""What a gzip member is given first, since zlib copies what is left of it; then twice as much each time."""

# What a compressed file may cost for each of its bytes, and for nothing: docs/adr/0027-bombs.md.
EXPANSION_MAX: Final = 8192
EXPANDED_FREE_BYTES: Final = 64 * 2**20
PARTS_PER_BYTE_MAX: Final = 16
PARTS_FREE: Final = 1_000_000

GZIP_MAGIC: Final = b"\x1f\x8b"  # RFC 1952 section 2.3.1
_GZIP_BITS: Final = 16 + zlib.MAX_WBITS  # zlib's word for: with gzip's header
_NOT_ZERO: Final = re.compile(rb"[^\0]")
_TOO_LARGE_A_WINDOW: Final = "too much memory"  # of zstd's error
_WINDOW_SAID: Final = "to unpack it takes more than 128 MiB of memory (it was made with zstd --long)"
# RFC 8878 sections 3.1.1 and 3.1.2. pzstd puts a skippable frame first.
ZSTD_MAGICS: Final = (b"\x28\xb5\x2f\xfd", *(bytes((0x50 + low, 0x2A, 0x4D, 0x18)) for low in range(16)))
# What we can't read, but name a program for.
OTHER_COMPRESSIONS: Final = {b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"\x04\x22\x4d\x18": "lz4"}

# draft-ietf-opsawg-pcap section 4: microseconds, nanoseconds; and Kuznetzov's variant of 1999. Big-endian.
MICROSECONDS_MAGIC: Final = 0xA1B2C3D4
NANOSECONDS_MAGIC: Final = 0xA1B23C4D
KUZNETZOV_MAGIC: Final = 0xA1B2CD34
PCAP_MAGICS: Final = frozenset(
    magic.to_bytes(4, "big") for magic in (MICROSECONDS_MAGIC, NANOSECONDS_MAGIC, KUZNETZOV_MAGIC)
)
PCAP_HEADER_BYTES: Final = 24
PCAPNG_MAGIC: Final = b"\x0a\x0d\x0d\x0a"  # draft-ietf-opsawg-pcapng section 4.1


# The end of the year 9999, and of what datetime holds. Times in pcapng have 64 bits.
LATEST_SECONDS: Final = 253_402_300_799


COPY_AGAIN: Final = "copy it again from its source"


class CutShort(Exception):
    """The bytes end too soon or make no sense from here on. The message says which, not of which file."""

    remedy = COPY_AGAIN


class ExpandsTooMuch(CutShort):
    """Reading on would cost far more than the file's size lets expect."""

    remedy = "if it is a capture all the same, unpack it on the way: zstd -dc FILE | smtp-horizon read -"


def too_many_parts() -> ExpandsTooMuch:
    return ExpandsTooMuch(f"it has more than {PARTS_PER_BYTE_MAX} packets for each of its bytes")


def check_time(seconds: int) -> None:
    """Refuses a packet's time that no calendar knows: only a damaged or forged file has one."""
    if abs(seconds) > LATEST_SECONDS:
        raise CutShort(f"it is damaged (a packet's time is {seconds} s after 1970)")


def shown(path: str) -> str:
    """A path as it may stand in a message of one line."""
    if path == STANDARD_INPUT:
        return "standard input"
    return path if path.isprintable() else repr(path)


class ByteStream:
    """A descriptor read once, front to back. `interrupt` ends a `read` that waits in another thread."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.read_bytes = 0
        self._wake_read, self._wake_write = os.pipe()
        self._poll = select.poll()
        self._poll.register(self.descriptor, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)

    def read(self, size: int) -> bytes:
        """At least one byte and at most `size`; none at the end, or once interrupted."""
        if any(ready == self._wake_read for ready, _ in self._poll.poll()):
            return b""
        piece = os.read(self.descriptor, size)
        self.read_bytes += len(piece)
        return piece

    def interrupt(self) -> None:
        os.write(self._wake_write, b"\0")

    def close(self) -> None:
        for descriptor in (self.descriptor, self._wake_read, self._wake_write):
            os.close(descriptor)


class OpenInput:
    """An open input that is not empty, and its uncompressed bytes."""

    def __init__(self, path: str) -> None:
        """Raises CaptureFileError."""
        self.name = shown(path)
        self.stream = ByteStream(_open(path, self.name))
        try:
            self._uncompress()
            self._recognise()
        except BaseException:
            self.close()
            raise

    def _uncompress(self) -> None:
        status = os.fstat(self.stream.descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise CaptureFileError(f"{self.name} is a directory; name the capture files in it")
        self.is_regular = stat.S_ISREG(status.st_mode)
        self.size_bytes = status.st_size if self.is_regular else None
        try:
            head = at_least(PCAP_HEADER_BYTES, self._pieces())
            pieces: Iterator[bytes] = chain([head], self._pieces())
            self.is_compressed = True
            if head.startswith(GZIP_MAGIC):
                pieces = self._bounded(_gunzipped(pieces))
            elif head.startswith(ZSTD_MAGICS):
                pieces = self._bounded(_unzstandarded(pieces))
            else:
                self.is_compressed = False
            self.first = at_least(PCAP_HEADER_BYTES, pieces)
        except (CutShort, OSError) as error:
            remedy = error.remedy if isinstance(error, CutShort) else COPY_AGAIN
            raise CaptureFileError(f"{self.name} can't be read: {error}; {remedy}") from error
        if not self.first:
            raise CaptureFileError(f"{self.name} is empty; was the capture stopped before its first packet?")
        self.pieces: Iterator[bytes] = chain([self.first], pieces)
        """The uncompressed bytes from the beginning. Raises CutShort where the compression ends too soon."""

    def _recognise(self) -> None:
        """What the input must begin with: anything. Raises CaptureFileError."""

    def _pieces(self) -> Iterator[bytes]:
        while piece := self.stream.read(READ_BYTES):
            yield piece

    def _bounded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        unpacked_bytes = 0
        for piece in pieces:
            yield piece
            unpacked_bytes += len(piece)
            if unpacked_bytes > EXPANDED_FREE_BYTES + EXPANSION_MAX * self.stream.read_bytes:
                raise ExpandsTooMuch(f"it expands to more than {EXPANSION_MAX:,} times its size")

    def parts_max(self) -> int:
        """How many packets or blocks may have come of the bytes that were read so far."""
        if not self.is_compressed:
            return sys.maxsize
        return PARTS_FREE + PARTS_PER_BYTE_MAX * self.stream.read_bytes

    def close(self) -> None:
        self.stream.close()


class OpenCapture(OpenInput):
    """An open input that begins like a pcap or pcapng file."""

    def _recognise(self) -> None:
        first = self.first
        self.is_pcapng = first.startswith(PCAPNG_MAGIC)
        for magic, program in OTHER_COMPRESSIONS.items():
            if first.startswith(magic):
                raise CaptureFileError(
                    f"{self.name} is compressed with {program}; "
                    f"unpack it on the way: {program} -dc FILE | smtp-horizon read -"
                )
        if first[:4] not in PCAP_MAGICS and first[3::-1] not in PCAP_MAGICS and not self.is_pcapng:
            raise CaptureFileError(
                f"{self.name} is no pcap or pcapng capture (it begins with {first[:8]!r}); "
                "name a file that tcpdump -w or Wireshark wrote, or try --probe pyshark"
            )
        if len(first) < PCAP_HEADER_BYTES:
            raise CaptureFileError(f"{self.name} is cut short in its header; copy it again from its source")


def _open(path: str, name: str) -> int:
    try:
        if path == STANDARD_INPUT:
            if os.isatty(0):
                raise CaptureFileError("standard input is a terminal; pipe a capture into it, or name a file")
            return os.dup(0)
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise CaptureFileError(f"{name} does not exist; check the path") from error
    except PermissionError as error:
        raise CaptureFileError(f"{name} may not be read by this user; use sudo, or chmod it") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CaptureFileError(f"{name} can't be opened: {reason}; check the path") from error


def at_least(size: int, pieces: Iterator[bytes]) -> bytes:
    """The next pieces, joined, until there are `size` bytes or no more."""
    head = b""
    while len(head) < size and (piece := next(pieces, b"")):
        head += piece
    return head


def _gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """All members of a gzip file (RFC 1952 section 2.2), and zeros behind them, as from a tape."""
    member: _Member | None = _Member()
    for piece in pieces:
        position = 0
        while position < len(piece):
            if member is None:
                found = _NOT_ZERO.search(piece, position)
                if found is None:
                    break
                position = found.start()
                member = _Member()
            packed = piece[position : position + member.input_bytes]
            yield from member.unpack(packed)
            position += len(packed) - member.unused_bytes
            if member.is_whole:
                member = None
    if member is not None:
        raise CutShort("its gzip data is cut short")


class _Member:
    """One member of a gzip file. zlib reads its header, however long, and checks its sum."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_GZIP_BITS)
        self.input_bytes = MEMBER_INPUT_BYTES
        """How much to give it next."""

    @property
    def is_whole(self) -> bool:
        return self._inflate.eof

    @property
    def unused_bytes(self) -> int:
        """How much of what was given last is behind its end."""
        return len(self._inflate.unused_data)

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        """Raises CutShort."""
        self.input_bytes = min(2 * self.input_bytes, READ_BYTES)
        while True:
            try:
                unpacked = self._inflate.decompress(packed, UNPACKED_BYTES)
            except zlib.error as error:
                raise CutShort(f"its gzip data is damaged ({error})") from error
            if unpacked:
                yield unpacked
            packed = self._inflate.unconsumed_tail
            if self._inflate.eof or (not packed and len(unpacked) < UNPACKED_BYTES):
                return


def _unzstandarded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """All frames of a zstd file (RFC 8878 section 3.1).

    Not with the library's stream reader, which says nothing when a frame is cut short.
    """
    context = zstandard.ZstdDecompressor()
    frame = context.decompressobj()
    in_frame = False
    for piece in pieces:
        for start in range(0, len(piece), ZSTD_INPUT_BYTES):
            packed = piece[start : start + ZSTD_INPUT_BYTES]
            while packed:
                try:
                    unpacked = frame.decompress(packed)
                except zstandard.ZstdError as error:
                    if _TOO_LARGE_A_WINDOW in str(error):
                        raise ExpandsTooMuch(_WINDOW_SAID) from error
                    raise CutShort(f"its zstd data is damaged ({error})") from error
                if unpacked:
                    yield unpacked
                in_frame = not frame.eof
                packed = frame.unused_data
                if frame.eof:
                    frame = context.decompressobj()
    if in_frame:
        raise CutShort("its zstd data is cut short")
