"""Frames -> tshark -> segments. The one file that drives tshark, through pyshark.

Frames go in as pcapng on tshark's standard input, rows come out. A frame is kept until its row has come, so
nothing is lost when tshark is replaced, and it is replaced:

- after `FRAMES_PER_TSHARK` frames, because its memory grows with every connection that it has seen;
- when it died or hangs. What it had not answered goes to the next one. Dissectors have bugs, and a frame over
  which tshark dies twice is given up and counted.

Of pyshark we take the running of tshark as a coroutine: options, standard error, the loop that reads its
output, the end of the process. Its own parsers make a tree of objects out of all that tshark can say of a
packet; `_Rows` takes their place, see docs/adr/0009-frames-through-tshark.md.
"""

import asyncio
from collections import deque
from contextlib import suppress
from subprocess import PIPE
from typing import Any, Final

from pyshark.capture.capture import Capture
from pyshark.tshark.output_parser.base_parser import BaseTsharkOutputParser

from probes import isolation
from probes.probe import CaptureInterrupted, DropSite, PacketCounts, Restart
from probes.segment import Segment
from probes.tshark.blocks import SECTION_HEADER, Interfaces
from probes.tshark.processes import end
from probes.tshark.programs import ENVIRONMENT
from probes.tshark.rows import FIELDS, OUTPUT_FORMAT, RowError, RowReader

# Chosen because tshark has 160 MB at birth and grows by 1.2 kB a connection (docs/benchmarks.md): by 120 MB
# if every frame opens one, and by 9 MB if the frames are mail. A new one costs the time of 5,000 frames.
FRAMES_PER_TSHARK: Final = 100_000
# What may wait for tshark, or in it. Chosen because it bridges the start of a tshark at 10,000 sessions a
# second; beyond it dumpcap waits, then its buffer in the kernel, and that one counts what it drops.
MAX_UNANSWERED_BYTES: Final = 32 * 2**20
# Chosen because a pipe holds some hundred frames.
FRAMES_PER_WRITE: Final = 128
# No frame takes a second to dissect: a tshark that has said nothing all this time says nothing more.
SILENCE_CHECKS: Final = 3
SILENCE_CHECK_SECONDS: Final = 5.0
# How long a tshark may take from closing its output to its end.
LAST_WORDS_SECONDS: Final = 2.0
# Once is chance, twice the frame's fault; after many in a row tshark has to show that it works at all.
DEATHS_OVER_ONE_FRAME: Final = 2
DEATHS_WITHOUT_AN_ANSWER: Final = 6

PREFERENCES: Final = {
    "ip.defragment": "TRUE",
    "ipv6.defragment": "TRUE",
    # A packet captured before the hardware cut it up has no length of its own.
    "ip.tso_support": "TRUE",
    "ipv6.tso_support": "TRUE",
    # With offload, checksums of packets that this host sends are wrong, and would stop the dissection.
    "ip.check_checksum": "FALSE",
    "tcp.check_checksum": "FALSE",
    # What follows is the parser's work, and costs tshark memory for each connection.
    "tcp.analyze_sequence_numbers": "FALSE",
    "tcp.desegment_tcp_streams": "FALSE",
    "tcp.try_heuristic_first": "FALSE",
}


class Dissector:
    """One tshark at a time, fed with frames; a row comes back for each.

    All coroutines belong to one event loop. `settled` is set whenever there is something new to take, or
    nothing left to wait for.
    """

    def __init__(
        self,
        tshark: str,
        ports: frozenset[int],
        counts: PacketCounts,
        interfaces: Interfaces,
        *,
        frames_per_tshark: int = FRAMES_PER_TSHARK,
    ) -> None:
        self.settled = asyncio.Event()
        self._path = tshark
        self._ports = ports
        self._counts = counts
        self._interfaces = interfaces
        self._frames_per_tshark = frames_per_tshark
        self._rows = RowReader(ports, counts)
        self._waiting: deque[bytes] = deque()
        self._given: deque[bytes] = deque()
        self._unanswered_bytes = 0
        self._segments: list[Segment] = []
        self._is_finished = False
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._answers = 0
        """Of the tshark that runs now."""

    @property
    def is_idle(self) -> bool:
        """Whether every frame was answered."""
        return not self._unanswered_bytes

    async def put(self, frames: list[bytes]) -> None:
        """Frames as enhanced packet blocks. Waits while there are too many."""
        self._waiting.extend(frames)
        self._unanswered_bytes += sum(map(len, frames))
        self._more.set()
        while self._unanswered_bytes > MAX_UNANSWERED_BYTES:
            self._room.clear()
            await self._room.wait()

    def finish(self) -> None:
        """No more frames will be put."""
        self._is_finished = True
        self._more.set()

    def take(self) -> list[Segment]:
        """The segments since the last time, in the frames' order."""
        segments, self._segments = self._segments, []
        self.settled.clear()
        return segments

    async def run(self) -> None:
        """Until `finish`, and all is answered. Raises CaptureInterrupted when no tshark works."""
        try:
            await self._run_all()
        finally:
            self._rows.flush()
            self.settled.set()

    async def _run_all(self) -> None:
        deaths = 0
        while await self._has_work():
            tshark = self._new_tshark()
            reason = await self._run_one(tshark)
            if reason is None:
                continue
            self._counts.restarts[reason] += 1
            if reason is Restart.PLANNED:
                continue
            self._waiting.extendleft(reversed(self._given))
            self._given.clear()
            deaths = 1 if self._answers else deaths + 1
            if deaths >= DEATHS_WITHOUT_AN_ANSWER and not await self._is_tshark_sound():
                raise CaptureInterrupted(f"tshark does not work ({tshark.last_words}); try: tshark -v")
            if deaths % DEATHS_OVER_ONE_FRAME == 0 and self._waiting:
                self._counts.dropped[DropSite.TSHARK] += 1
                self._forget(self._waiting.popleft())

    def _new_tshark(self) -> "_Tshark":
        return _Tshark(self._path, self._ports)

    async def _is_tshark_sound(self) -> bool:
        """Whether it reads a capture without frames: then it is the frames over which it dies, however many
        somebody sends."""
        tshark, rows = self._new_tshark(), list[list[bytes]]()
        try:
            reading = asyncio.ensure_future(tshark.packets_from_tshark(rows.append, close_tshark=False))
            with suppress(OSError):
                stdin = await tshark.stdin
                stdin.write(SECTION_HEADER)
                stdin.close()
            await asyncio.wait({reading}, timeout=SILENCE_CHECKS * SILENCE_CHECK_SECONDS)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        finally:
            await tshark.end()
        return tshark.status == 0 and not rows

    async def _has_work(self) -> bool:
        """Waits for a first frame: a tshark that has nothing to do is not started."""
        while not self._waiting and not self._is_finished:
            self._more.clear()
            await self._more.wait()
        return bool(self._waiting)

    async def _run_one(self, tshark: "_Tshark") -> Restart | None:
        """One tshark from its start to its end. Why there has to be another; None if there need not be."""
        self._answers = 0
        self._given.clear()
        reading = asyncio.ensure_future(tshark.packets_from_tshark(self._read, close_tshark=False))
        feeding = asyncio.ensure_future(self._feed(tshark))
        try:
            if await self._is_hanging(reading):
                return Restart.HUNG
            if (error := reading.exception()) is not None:
                tshark.last_words = str(error)
            if error is not None or self._given or not feeding.done():
                return Restart.DIED
            return None if self._is_finished and self.is_idle else Restart.PLANNED
        finally:
            for task in (feeding, reading):
                task.cancel()
            await asyncio.gather(feeding, reading, return_exceptions=True)
            await tshark.end()

    async def _is_hanging(self, reading: "asyncio.Future[None]") -> bool:
        """Waits for the end of tshark's output, but not if it is silent for too long.

        A number of short waits, not a long one: while this program itself stands still, as on a laptop that
        sleeps, at most one of them runs out.
        """
        silent_checks = answers = 0
        while silent_checks < SILENCE_CHECKS:
            await asyncio.wait({reading}, timeout=SILENCE_CHECK_SECONDS)
            if reading.done():
                return False
            is_silent = bool(self._given) and answers == self._answers
            silent_checks = silent_checks + 1 if is_silent else 0
            answers = self._answers
        return True

    async def _feed(self, tshark: "_Tshark") -> None:
        """Gives tshark its share of frames, then the end of its input."""
        stdin = await tshark.stdin
        stdin.write(SECTION_HEADER)
        described, left = 0, self._frames_per_tshark
        while left:
            if self._waiting:
                count = min(FRAMES_PER_WRITE, left, len(self._waiting))
                frames = [self._waiting.popleft() for _ in range(count)]
                self._given.extend(frames)
                left -= len(frames)
                descriptions = self._interfaces.descriptions[described:]
                described += len(descriptions)
                stdin.write(b"".join((*descriptions, *frames)))
                await stdin.drain()
            elif self._is_finished:
                break
            else:
                self._more.clear()
                await self._more.wait()
        stdin.close()

    def _read(self, rows: list[bytes]) -> None:
        """tshark's answers, in the frames' order. Raises RowError."""
        for row in rows:
            number, segment = self._rows.read(row.decode("ascii", "replace"))
            self._answers += 1
            if number != self._answers or not self._given:
                raise RowError(f"frame {number} was answered in place of {self._answers}")
            self._forget(self._given.popleft())
            if segment is not None:
                self._segments.append(segment)
        if self._segments or self.is_idle:
            self.settled.set()

    def _forget(self, frame: bytes) -> None:
        """Nothing more is to come of this one."""
        self._unanswered_bytes -= len(frame)
        if self._unanswered_bytes <= MAX_UNANSWERED_BYTES:
            self._room.set()


class _Tshark(Capture):  # type: ignore[misc]  # pyshark has no types
    """One process, which reads pcapng from its standard input, and whose packets are lists of rows."""

    def __init__(self, path: str, ports: frozenset[int]) -> None:
        """Within a running event loop."""
        loop = asyncio.get_running_loop()
        fields = [argument for name in FIELDS for argument in ("-e", name)]
        super().__init__(
            eventloop=loop,  # else pyshark would set a child watcher, which Python 3.14 no longer knows
            tshark_path=path,
            override_prefs=PREFERENCES,
            decode_as={f"tcp.port=={port}": "data" for port in sorted(ports)},
            custom_parameters=[*OUTPUT_FORMAT, *fields],
        )
        self.stdin: asyncio.Future[asyncio.StreamWriter] = loop.create_future()
        self.last_words = ""
        """Why it was of no use, once it has ended."""
        self._process: asyncio.subprocess.Process | None = None

    @property
    def status(self) -> int | None:
        """Its exit status, once it has ended."""
        return None if self._process is None else self._process.returncode

    async def _get_tshark_process(self, packet_count: int | None = None, stdin: int | None = None) -> Any:
        """Not pyshark's own: that looks for a config.ini in the working directory, knows one output format
        less, and leaves the process in our group, where a Ctrl-C would reach it before us."""
        del packet_count, stdin
        # -l: each row is written at once. -n: no names are looked up.
        arguments = [self.tshark_path, "-l", "-n", *self.get_parameters(), "-r", "-"]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                cwd=isolation.FOLDER,
                env=ENVIRONMENT,
                start_new_session=True,
            )
        except OSError as error:
            self.stdin.set_exception(error)
            raise
        assert self._process.stdin is not None
        # pyshark's own list of processes is left empty: it would kill them, and raise over their exit status.
        self._create_stderr_handling_task(self._process.stderr)
        self.stdin.set_result(self._process.stdin)
        return self._process

    def _setup_tshark_output_parser(self) -> "_Rows":
        return _Rows()

    async def end(self) -> None:
        """Waits for it if it has ended its output, else kills it."""
        if self._process is not None:
            await end(self._process, LAST_WORDS_SECONDS if self._eof_reached else 0)
        await self.close_async()  # which waits for the last of standard error
        said = self._last_error_line
        if not said or said.startswith("Running as user"):  # which it says to root, whatever happens
            said = "it said nothing"
        self.last_words = self.last_words or f"status {self.status}: {said}"


class _Rows(BaseTsharkOutputParser):  # type: ignore[misc]  # pyshark has no types
    """tshark's output cut into rows, all that are complete at a time: a "packet" of pyshark's is a list."""

    def _extract_packet_from_data(
        self, data: bytes, got_first_packet: bool = True
    ) -> tuple[bytes | None, bytes]:
        del got_first_packet
        complete, newline, rest = data.rpartition(b"\n")
        return (complete, rest) if newline else (None, data)

    def _parse_single_packet(self, packet: bytes) -> list[bytes]:
        return packet.split(b"\n")
