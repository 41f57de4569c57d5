"""Live frames: dumpcap, Wireshark's program for capturing and nothing else.

It needs no root: on Debian it has the capability to capture, for members of the group wireshark.

A dumpcap says how many packets the kernel dropped only when it ends. So a new one takes over every half a
minute, while the old one still runs for a second: no packet is missed, and those that both saw are taken out
of the new one's.
"""

import asyncio
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from subprocess import PIPE
from typing import Final, Self

from probes import isolation
from probes.probe import HEARTBEAT_SECONDS, DropSite, PacketCounts, ProbeUnavailable
from probes.tshark.blocks import BlockReader, FrameSink, Interfaces, NotPcapng, frame_hash
from probes.tshark.processes import end, last_words_of
from probes.tshark.programs import ENVIRONMENT, found

ANY: Final = "any"

# As much as the eBPF probe's ring buffer.
KERNEL_BUFFER_MIB: Final = 32
# Chosen because scrapes are a quarter of a minute to a minute apart.
TAKE_OVER_SECONDS: Final = 30.0
# Chosen because an interface that is made anew, as a VPN's or a container's, takes seconds.
RETRY_SECONDS: Final = 3.0
# A remote interface may take long to answer.
START_SECONDS: Final = 20.0
# The kernel holds packets back for dumpcap for up to 250 ms (CAP_READ_TIMEOUT in dumpcap.c), and what it has
# not seen when it is told to end, it leaves behind. Four times that, for a busy machine.
FLUSH_SECONDS: Final = 1.0
# A clock that was set back would make it look far behind.
FLUSH_AT_MOST_SECONDS: Final = 30.0
# How much later than the old dumpcap's last frame the new one's copy of it may have been stamped. They see it
# microseconds apart; chosen so that no busy machine makes it more.
COPY_NS: Final = 1_000_000_000
# Chosen because it takes a quarter of a second.
STOP_SECONDS: Final = 5.0
# Chosen because it is a few hundred frames.
READ_BYTES: Final = 256 * 1024


class InterfaceSource:
    """One interface: captured, or waiting to be again."""

    def __init__(
        self, name: str, dumpcap: str, expression: str, interfaces: Interfaces, counts: PacketCounts
    ) -> None:
        """`expression`: a pcap-filter(7)."""
        self.name = name
        self.is_up = False
        self._stopping = asyncio.Event()
        self._program = dumpcap
        self._expression = expression
        self._interfaces = interfaces
        self._counts = counts
        self._dumpcap: _Dumpcap | None = None

    async def open(self) -> None:
        """Raises ProbeUnavailable."""
        self._dumpcap = await self._start()
        self.is_up = True

    async def run(self, put: FrameSink) -> None:
        """Hands frames on until `stop`."""
        while not self._stopping.is_set():
            if self._dumpcap is None:
                await self._open_again()
                continue
            if not await _relay(self._dumpcap, put, self._has_to_go()):
                await self.close()
            elif not self._stopping.is_set():
                await self._take_over(self._dumpcap, put)
        if self._dumpcap is not None:
            await _relay_to_the_end(self._dumpcap, put)
            await self.close()

    def stop(self) -> None:
        """Captures no more; `run` hands on what was captured, and returns."""
        self._stopping.set()

    async def close(self) -> None:
        self.is_up = False
        if self._dumpcap is not None:
            dumpcap, self._dumpcap = self._dumpcap, None
            await dumpcap.end()
            self._counts.dropped[DropSite.KERNEL] += dumpcap.dropped

    async def _start(self) -> "_Dumpcap":
        return await _Dumpcap.start(self._program, self.name, self._expression, BlockReader(self._interfaces))

    async def _open_again(self) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), RETRY_SECONDS)
        except TimeoutError:
            with suppress(ProbeUnavailable):  # not yet
                await self.open()

    def _has_to_go(self) -> Callable[[], bool]:
        """Whether the dumpcap that runs now has to end: on `stop`, or when it is time for another.

        That is never, for what is no interface of this machine: a pipe can't be read by two, and nothing is
        dropped in front of it.
        """
        is_local = self.name == ANY or self.name in _local_interfaces()
        is_old = _after(TAKE_OVER_SECONDS if is_local else math.inf)
        return lambda: self._stopping.is_set() or is_old()

    async def _take_over(self, old: "_Dumpcap", put: FrameSink) -> None:
        seen_by_both: list[int] = []

        async def put_and_remember(frames: list[bytes]) -> None:
            seen_by_both.extend(map(frame_hash, frames))
            await put(frames)

        starting = asyncio.ensure_future(self._start())
        try:
            await _relay(old, put_and_remember, starting.done)
            self._dumpcap = new = await starting
        except ProbeUnavailable:  # so the old one will end soon, too
            return
        finally:
            starting.cancel()
        try:
            await _relay_to_the_end(old, put_and_remember)
            new.leave_out(seen_by_both, old.latest_ns + COPY_NS)
        finally:
            await old.end()
            self._counts.dropped[DropSite.KERNEL] += old.dropped


async def _relay(dumpcap: "_Dumpcap", put: FrameSink, is_over: Callable[[], bool]) -> bool:
    """Hands frames on until it is over; False if dumpcap ended before that."""
    while not is_over():
        with suppress(TimeoutError):
            frames = await dumpcap.frames(HEARTBEAT_SECONDS)
            if frames is None:
                return False
            await put(frames)
    return True


async def _relay_to_the_end(dumpcap: "_Dumpcap", put: FrameSink) -> None:
    """Hands on all that was captured up to now, however much of it waits, and ends dumpcap."""
    asked_ns = time.time_ns()
    is_flushed, is_enough = _after(FLUSH_SECONDS), _after(FLUSH_AT_MOST_SECONDS)
    while not is_enough():
        try:
            frames = await dumpcap.frames(HEARTBEAT_SECONDS)
        except TimeoutError:
            if is_flushed():
                break
            continue
        if frames is None:
            return
        await put(frames)
        if is_flushed() and dumpcap.latest_ns >= asked_ns:
            break
    dumpcap.hang_up()
    with suppress(TimeoutError):
        while (frames := await dumpcap.frames(STOP_SECONDS)) is not None:
            await put(frames)


def _after(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed since now."""
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    return lambda: clock() >= end


class _Dumpcap:
    """One process.

    It has a terminal of its own, which we hold: when that closes, by `hang_up` or because we died, the kernel
    sends it SIGHUP. A pipe would tell it only with the next packet, and a signal may not be ours to send.
    """

    def __init__(self, process: asyncio.subprocess.Process, terminal: int, blocks: BlockReader) -> None:
        self._process = process
        self._terminal: int | None = terminal
        self._blocks = blocks
        self._first: list[bytes] = []
        self._left_out: Counter[int] = Counter()
        self._left_out_until_ns = 0
        self._said = asyncio.ensure_future(last_words_of(process))

    @classmethod
    async def start(cls, program: str, interface: str, expression: str, blocks: BlockReader) -> Self:
        """Returns when it captures. Raises ProbeUnavailable."""
        held, given = os.openpty()
        try:
            process = await asyncio.create_subprocess_exec(
                *(found("setsid"), "--ctty", program, "-q", "-p", "-B", str(KERNEL_BUFFER_MIB)),
                *("-i", _absolute(interface), "-f", expression, "-w", "-"),
                stdin=given,
                stdout=PIPE,
                stderr=PIPE,
                cwd=isolation.FOLDER,
                env=ENVIRONMENT,
            )
        except OSError as error:
            os.close(held)
            raise ProbeUnavailable(
                f"dumpcap can't be started ({error})", "see `smtp-horizon doctor`"
            ) from error
        finally:
            os.close(given)
        self = cls(process, held, blocks)
        try:
            while not blocks.has_begun and (frames := await self.frames(START_SECONDS)) is not None:
                self._first += frames
        except TimeoutError:
            await self.end()
            raise ProbeUnavailable(
                f"dumpcap has not begun to capture on {interface} within {START_SECONDS:.0f} s",
                f"see what `dumpcap -i {interface} -w /dev/null` says",
            ) from None
        except BaseException:
            await self.end()
            raise
        if not blocks.has_begun:
            await self.end()
            raise _refusal(interface, self._said.result())
        return self

    @property
    def latest_ns(self) -> int:
        """Time stamp of the last of `frames`."""
        return self._blocks.latest_ns

    @property
    def dropped(self) -> int:
        """Known only at its end."""
        return self._blocks.dropped

    async def frames(self, within_seconds: float = math.inf) -> list[bytes] | None:
        """The next ones; None at its end. Raises TimeoutError."""
        frames, self._first = self._first, []
        if not frames:
            assert self._process.stdout is not None
            async with asyncio.timeout(None if within_seconds == math.inf else within_seconds):
                piece = await self._process.stdout.read(READ_BYTES)
            if not piece:
                return None
            try:
                frames = self._blocks.read(piece)
            except NotPcapng:  # nothing of use will come any more
                return None
        return self._without_copies(frames) if self._left_out else frames

    def leave_out(self, frames: list[int], until_ns: int) -> None:
        """Of the frames to come, those captured before this time may be copies of these, given by their
        hashes."""
        self._left_out = Counter(frames)
        self._left_out_until_ns = until_ns

    def _without_copies(self, frames: list[bytes]) -> list[bytes]:
        kept: list[bytes] = []
        for frame in frames:
            content = frame_hash(frame)
            if self._left_out[content] > 0:
                self._left_out[content] -= 1
            else:
                kept.append(frame)
        if self.latest_ns > self._left_out_until_ns:
            self._left_out.clear()
        return kept

    def hang_up(self) -> None:
        """Asks it to hand over what it has, and to end."""
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    async def end(self) -> None:
        self.hang_up()
        with suppress(TimeoutError):
            while await self.frames(STOP_SECONDS) is not None:
                pass  # its last block says what was dropped
        await end(self._process, STOP_SECONDS)
        await self._said


def _absolute(interface: str) -> str:
    """The same, for who runs in another folder: it may be the path of a named pipe."""
    return os.path.abspath(interface) if os.path.exists(interface) and "/" in interface else interface


def _local_interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def _refusal(interface: str, said: str) -> ProbeUnavailable:
    """In our words where the reason is known."""
    if "permission" in said.lower():
        return ProbeUnavailable(
            f"no privilege to capture on {interface} with dumpcap",
            "run as root, or as a member of the group wireshark: dpkg-reconfigure wireshark-common, and then "
            "usermod -aG wireshark USER",
        )
    if "no device named" in said or "No such device" in said:
        return ProbeUnavailable(
            f"there is no interface {interface!r} on this machine",
            f"name one of: {', '.join((ANY, *_local_interfaces()))}",
        )
    return ProbeUnavailable(
        f"dumpcap can't capture on {interface} ({said or 'it does not say why'})",
        f"see what `dumpcap -i {interface} -w /dev/null` says",
    )
