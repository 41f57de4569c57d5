"""Frames of a file: editcap, which reads every format that Wireshark knows and writes pcapng.

It keeps nothing of what it has read, as tshark would.
"""

import asyncio
import os
import re
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import IO, Final

from probes.pcap.opening import CutShort, OpenInput
from probes.probe import CaptureFileError
from probes.tshark.blocks import BlockReader, FrameSink, Interfaces, NotPcapng
from probes.tshark.programs import ENVIRONMENT, last_words_of

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
            is_read_by_editcap = not self._capture.is_compressed
            self.close()
            if is_read_by_editcap:
                self._recognise()

    def _recognise(self) -> None:
        """Asks captype, editcap's neighbour, whether Wireshark knows the format."""
        captype = Path(self._editcap).with_name("captype")
        answer = subprocess.run(  # noqa: S603 - it stands beside the editcap that was found
            [captype, os.path.abspath(self._path)], capture_output=True, check=False, env=ENVIRONMENT
        )
        if answer.returncode:
            raise self._refused()

    def _refused(self) -> CaptureFileError:
        return CaptureFileError(
            f"{self.name} is no capture in a format that Wireshark knows; "
            "name a file that tcpdump -w or Wireshark wrote"
        )

    async def run(self, put: FrameSink) -> None:
        """Hands all frames on. Raises CaptureFileError, or CutShort where the file ends too soon."""
        if self._capture is None:
            self._capture = OpenInput(self._path)
        pump = None
        if self._capture.is_regular and not self._capture.is_compressed:
            argument = os.path.abspath(self._path)
        else:
            argument, pump = "-", _Pump(self._capture)
        process = await asyncio.create_subprocess_exec(
            *(self._editcap, argument, "-"),
            stdin=subprocess.DEVNULL if pump is None else pump.output,
            stdout=PIPE,
            stderr=PIPE,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        said = asyncio.ensure_future(last_words_of(process))
        if pump is not None:
            pump.start()
        try:
            await self._relay(process, put)
            trouble = pump.end() if pump is not None else None
            complaint = await said
        finally:
            if pump is not None:
                pump.end()
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await said
            self.close()
        if trouble is not None:
            raise trouble
        if complaint:
            if not self.frames_read and process.returncode:
                raise self._refused()
            raise CutShort(_in_short(complaint))

    async def _relay(self, process: asyncio.subprocess.Process, put: FrameSink) -> None:
        assert process.stdout is not None
        blocks = BlockReader(self._interfaces)
        while piece := await process.stdout.read(READ_BYTES):
            try:
                frames = blocks.read(piece)
            except NotPcapng as error:
                raise CutShort("editcap does not write what it should") from error
            self.frames_read += len(frames)
            await put(frames)
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

    def _run(self) -> None:
        with self._input, suppress(BrokenPipeError):  # editcap has seen enough, or has ended
            try:
                for piece in self._capture.pieces:
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[self._input.write(rest) :]
            except CutShort as trouble:
                self._trouble = trouble
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    raise
                self._trouble = CutShort(f"it can't be read any more ({error.strerror})")

    def end(self) -> CutShort | None:
        """What was wrong with the input."""
        if self._thread.is_alive():
            self._capture.stream.interrupt()
            self._thread.join()
        return self._trouble


def _in_short(complaint: str) -> str:
    """`editcap: The file "x" appears to have been cut short.` -> `it appears to have been cut short`"""
    found = re.search(r'editcap: (?:The file "[^"]*" )?(.*)', complaint)
    said = found[1] if found else complaint
    return f"it {said.rstrip('.')}" if found and "The file" in complaint else said.rstrip(".")
