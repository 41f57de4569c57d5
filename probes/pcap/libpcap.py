"""Frames of a capture file, through libpcap: a microsecond each.

libpcap opens files by name only, so everything is handed over as /dev/fd/N: a plain file's own descriptor, or
for compressed files and standard input a pipe that a thread fills. Its times are in microseconds: of a
nanosecond capture, the last three digits are lost.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread
from typing import Any, Final

import pcapy

from probes.pcap.opening import LATEST_SECONDS, PCAP_HEADER_BYTES, CutShort, OpenCapture, at_least, check_time
from probes.pcap.pcapng import leading_blocks
from probes.segment import Segment

Decode = Callable[[int, int, bytes, int], Segment | None]
"""FrameDecoder.decode: time, link type, frame, wire length."""

# Chosen because the two threads then take turns a few times a second and not at every packet.
PIPE_BYTES: Final = 1024 * 1024


CUT_SHORT: Final = ("it is cut short",)


class Refused(Exception):
    """A pcapng file that libpcap can't read, or not any further."""


class LibpcapReader:
    """Reads one open capture."""

    def __init__(self, capture: OpenCapture, decode: Decode) -> None:
        """Raises Refused or CutShort."""
        self._capture = capture
        self._decode = decode
        self._pump: _Pump | None = None
        if capture.is_regular and not capture.is_compressed:
            self._open(capture.stream.descriptor)
        else:
            self._pump = _Pump(capture)
            try:
                self._open(self._pump.read_end)
            except BaseException:
                self._pump.close()
                raise
            self._pump.close_read_end()
        self._link_type = self._pcap.datalink()
        self.frames_read = 0

    def _open(self, descriptor: int) -> None:
        try:
            self._pcap = pcapy.open_offline(f"/dev/fd/{descriptor}")
        except pcapy.PcapError as error:
            raise self._explained(error) from error

    @property
    def consumed_bytes(self) -> int:
        """Of the file as it lies on the disk."""
        if self._pump is None:
            return os.lseek(self._pcap.getfd(), 0, os.SEEK_CUR)
        return self._capture.stream.read_bytes

    def read(self, limit: int, segments: list[Segment]) -> int:
        """Decodes up to `limit` frames into `segments`; says how many, none at the end.

        Raises Refused or CutShort, with `segments` and `frames_read` as far as it came.
        """
        decode = self._decode
        link_type = self._link_type
        append = segments.append
        frames = 0

        def receive(header: Any, frame: bytes) -> None:
            nonlocal frames
            seconds, microseconds = header.getts()
            if seconds > LATEST_SECONDS or seconds < -LATEST_SECONDS:
                check_time(seconds)
            frames += 1
            segment = decode(seconds * 1_000_000_000 + microseconds * 1000, link_type, frame, header.getlen())
            if segment is not None:
                append(segment)

        try:
            self._pcap.dispatch(limit, receive)
        except pcapy.PcapError as error:
            explained = self._explained(error)
            if self._pump is not None and explained.args == CUT_SHORT:
                self._pump.check()
            raise explained from error
        finally:
            self.frames_read += frames
        if not frames and self._pump is not None:
            self._pump.check()
        return frames

    def _explained(self, error: pcapy.PcapError) -> Refused | CutShort:
        """libpcap's texts are its only error codes (sf-pcap.c, sf-pcapng.c)."""
        text = str(error)
        if "truncated" in text:
            return CutShort(*CUT_SHORT)
        if self._capture.is_pcapng:
            return Refused(
                text
            )  # interfaces or byte orders that differ; if it is damage, python-pcapng says so
        return CutShort(f"it is damaged ({text})")

    def close(self) -> None:
        self._pcap.close()
        if self._pump is not None:
            self._pump.close()


class _Pump:
    """A thread that writes a capture's bytes into a pipe.

    pcapy holds the interpreter's lock while it opens a file, so the bytes that libpcap wants for that are in
    the pipe before.
    """

    def __init__(self, capture: OpenCapture) -> None:
        pieces = capture.pieces
        self._stream = capture.stream
        if capture.is_pcapng:
            leading = leading_blocks(pieces)
            head, needed = leading.head, leading.length
            if not leading.libpcap_reads_it:
                capture.put_back(head)
                raise Refused("its interfaces differ")
        else:
            head, needed = at_least(PCAP_HEADER_BYTES, pieces), PCAP_HEADER_BYTES
        self.read_end, self._write_end = os.pipe()
        self._read_end_open = True
        with suppress(OSError):  # over the user's limit: a smaller pipe does too
            fcntl.fcntl(self.read_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        if needed > fcntl.fcntl(self.read_end, fcntl.F_GETPIPE_SZ):
            self.close_read_end()
            os.close(self._write_end)
            capture.put_back(head)
            raise Refused("its head is larger than a pipe")
        os.write(self._write_end, head[:needed])
        self._error: CutShort | None = None
        self._filler = Thread(target=self._run, args=(head[needed:], pieces), daemon=True)
        self._filler.start()

    def _run(self, rest: bytes, pieces: Iterator[bytes]) -> None:
        try:
            self._write(rest)
            for piece in pieces:
                self._write(piece)
        except BrokenPipeError:
            pass  # closed early
        except CutShort as error:
            self._error = error
        except OSError as error:
            self._error = CutShort(f"it can't be read any further ({error.strerror})")
        finally:
            os.close(self._write_end)

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            written = os.write(self._write_end, rest)
            rest = rest[written:]

    def check(self) -> None:
        """Raises what ended the bytes before their time. Only after libpcap has seen their end."""
        self._filler.join()
        if self._error is not None:
            raise self._error

    def close_read_end(self) -> None:
        """libpcap has opened its own."""
        if self._read_end_open:
            self._read_end_open = False
            os.close(self.read_end)

    def close(self) -> None:
        """Ends the thread; libpcap must have closed its end."""
        self.close_read_end()
        self._stream.interrupt()
        self._filler.join()
