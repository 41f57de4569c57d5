"""Frames of a file: editcap, which reads every format that Wireshark knows and writes pcapng.

It keeps nothing of what it has read, as tshark would.
"""

import asyncio
import os
import re
import subprocess
import threading
from contextlib import suppress
from subprocess import PIPE
from typing import IO, Final

from probes import isolation
from probes.pcap.opening import CutShort, OpenInput, too_many_parts
from probes.probe import CaptureFileError
from probes.tshark.blocks import BlockReader, FrameSink, Interfaces, NotPcapng
from probes.tshark.processes import end, last_words_of
from probes.tshark.programs import ENVIRONMENT

# Chosen because it is a few hundred frames.
READ_BYTES: Final = 256 * 1024


class FileSource:
    """One file or pipe. It is opened on construction, and if it can be opened again, closed until `run`."""

    def __init__(self, path: str, editcap: str, interfaces: Interfaces) -> None:
        """Raises CaptureFileError."""
        self._path = path
        self._editcap = editcap
        self._interfaces = interfaces
        self._capture: OpenInput | None = OpenInput(path)
        self.name = self._capture.name
        self.frames_read = 0
        if self._capture.is_regular:
            try:
                self._try(self._capture)
            finally:
                self.close()

    def _try(self, capture: OpenInput) -> None:
        """Asks editcap for the first packet."""
        head = _beginning(capture) if capture.is_compressed else None
        source = os.path.abspath(self._path) if head is None else "-"
        answer = subprocess.run(  # noqa: S603 - a path that `found` gave
            [self._editcap, "-r", source, "-", "1"],
            input=b"" if head is None else head,
            capture_output=True,
            check=False,
            cwd=isolation.FOLDER,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        if answer.returncode:
            raise self._refused(" ".join(answer.stderr.decode("utf-8", "replace").split()))

    def _refused(self, complaint: str) -> CaptureFileError:
        if "isn't a capture file" in complaint:
            return CaptureFileError(
                f"{self.name} is no capture in a format that Wireshark knows; "
                "name a file that tcpdump -w or Wireshark wrote"
            )
        if "can't be written" in complaint:
            return CaptureFileError(
                f"{self.name} does not say of what link type it is as a whole; if all of it is Ethernet: "
                "editcap -T ether FILE - | smtp-horizon read --probe pyshark -"
            )
        return CaptureFileError(
            f"{self.name} can't be read: {_in_short(complaint) or 'editcap does not say why'}; "
            "copy it again from its source"
        )

    async def run(self, put: FrameSink) -> None:
        """Hands all frames on. Raises CaptureFileError, or CutShort where the file ends too soon."""
        if self._capture is None:
            try:
                self._capture = OpenInput(self._path)
            except CaptureFileError as error:  # it could be opened a while ago
                raise CutShort(f"it can't be read any more ({error})") from error
        pump = None
        if self._capture.is_regular and not self._capture.is_compressed:
            argument = os.path.abspath(self._path)
        else:
            argument, pump = "-", _Pump(self._capture)
        try:
            process = await asyncio.create_subprocess_exec(
                *(self._editcap, argument, "-"),
                stdin=subprocess.DEVNULL if pump is None else pump.output,
                stdout=PIPE,
                stderr=PIPE,
                cwd=isolation.FOLDER,
                env=ENVIRONMENT,
                start_new_session=True,
            )
        except BaseException as error:
            if pump is not None:
                pump.abandon()
            if isinstance(error, OSError):
                raise CutShort(f"editcap can't be started any more ({error.strerror})") from error
            raise
        said = asyncio.ensure_future(last_words_of(process))
        if pump is not None:
            pump.start()
        try:
            await self._relay(process, self._capture, put)
            complaint = await said
        finally:
            await end(process)  # before the pump, which may be writing to it
            await said
            trouble = pump.end() if pump is not None else None
            self.close()
        if trouble is not None:
            raise trouble
        if process.returncode and not self.frames_read:
            raise self._refused(complaint)
        if complaint or process.returncode:
            raise CutShort(_in_short(complaint) or f"editcap ended with status {process.returncode}")

    async def _relay(self, process: asyncio.subprocess.Process, capture: OpenInput, put: FrameSink) -> None:
        assert process.stdout is not None
        blocks = BlockReader(self._interfaces)
        while piece := await process.stdout.read(READ_BYTES):
            try:
                frames = blocks.read(piece)
            except NotPcapng as error:
                raise CutShort("editcap does not write what it should") from error
            self.frames_read += len(frames)
            await put(frames)
            if self.frames_read > capture.parts_max():
                raise too_many_parts()
        await process.wait()

    def close(self) -> None:
        if self._capture is not None:
            self._capture.close()
            self._capture = None


class _Pump:
    """The uncompressed bytes of an input -> a pipe, in a thread of its own: reading may take any time."""

    def __init__(self, capture: OpenInput) -> None:
        self._capture = capture
        self._trouble: CutShort | None = None
        read_end, write_end = os.pipe()
        self.output: IO[bytes] = open(read_end, "rb", buffering=0)  # noqa: SIM115 - closed by start
        self._input: IO[bytes] = open(write_end, "wb", buffering=0)  # noqa: SIM115 - closed by the thread
        self._thread = threading.Thread(target=self._run, name="capture-input", daemon=True)

    def start(self) -> None:
        """After the process that reads `output` was started."""
        self.output.close()
        self._thread.start()

    def abandon(self) -> None:
        """In place of `start`."""
        self.output.close()
        self._input.close()

    def _run(self) -> None:
        with self._input:
            try:
                for piece in self._capture.pieces:
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[self._input.write(rest) :]
            except CutShort as trouble:
                self._trouble = trouble
            except BrokenPipeError:
                pass  # editcap has ended, and says why
            except OSError as error:
                self._trouble = CutShort(f"it can't be read any more ({error.strerror})")

    def end(self) -> CutShort | None:
        """What was wrong with the input. The process that reads `output` must have ended."""
        if self._thread.is_alive():
            self._capture.stream.interrupt()
            self._thread.join()
        return self._trouble


def _beginning(capture: OpenInput) -> bytes:
    """Enough of the uncompressed bytes for the first packet, or what there is."""
    head = b""
    with suppress(CutShort, OSError):
        for piece in capture.pieces:
            head += piece
            if len(head) >= READ_BYTES:
                break
    return head


def _in_short(complaint: str) -> str:
    """`editcap: The file "x" appears to have been cut short.` -> `it appears to have been cut short`"""
    if "packet encap" in complaint:  # pcapng: interface 0 encap 1 != packet encap 25
        return "it has sections of several link types, which editcap can't join: take --probe pcap;"
    found = re.search(r'editcap: The (?:file ".*"|standard input) (.*)', complaint)
    said = f"it {found[1]}" if found else complaint.removeprefix("editcap: ")
    return said.rstrip(".")
