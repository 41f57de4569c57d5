"""Live frames: dumpcap, Wireshark's program for capturing and nothing else.

It needs no root: on Debian it has the capability to capture, for members of the group wireshark.

A dumpcap says how many packets the kernel dropped only when it ends. So a new one takes over every minute,
while the old one still runs: no packet is missed, and those that both saw are taken out of the new one's.
"""

import asyncio
import os
import socket
from collections import Counter
from contextlib import suppress
from subprocess import PIPE
from typing import Final, Self

from probes.probe import DropSite, PacketCounts, ProbeUnavailable
from probes.tshark.blocks import BlockReader, FrameSink, Interfaces, NotPcapng, captured_bytes
from probes.tshark.programs import ENVIRONMENT, last_words_of

ANY: Final = "any"

# As much as the pcap probe has of it: a tenth of a second of 1 Gbit/s.
KERNEL_BUFFER_MIB: Final = 16
# Chosen because scrapes are a quarter of a minute to a minute apart.
TAKE_OVER_SECONDS: Final = 60.0
# Chosen because an interface that is made anew, as a VPN's or a container's, takes seconds.
RETRY_SECONDS: Final = 3.0
# A remote interface may take long to answer.
START_SECONDS: Final = 20.0
# It looks up from its packets every 250 ms (CAP_READ_TIMEOUT in dumpcap.c).
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
        """Hands frames on, without end."""
        while True:
            if self._dumpcap is None:
                await self._open_again()
            elif await _relay(self._dumpcap, put, self._take_over_seconds()):
                self.is_up = False
                await self.close()
            else:
                await self._take_over(self._dumpcap, put)

    async def close(self) -> None:
        if self._dumpcap is not None:
            dumpcap, self._dumpcap = self._dumpcap, None
            await dumpcap.end()
            self._counts.dropped[DropSite.KERNEL] += dumpcap.dropped

    async def _start(self) -> "_Dumpcap":
        return await _Dumpcap.start(self._program, self.name, self._expression, BlockReader(self._interfaces))

    async def _open_again(self) -> None:
        await asyncio.sleep(RETRY_SECONDS)
        with suppress(ProbeUnavailable):  # not yet
            await self.open()

    def _take_over_seconds(self) -> float | None:
        """None, which is never, for what is no interface of this machine: a pipe can't be read by two, and
        nothing is dropped in front of it."""
        return TAKE_OVER_SECONDS if self.name == ANY or self.name in _local_interfaces() else None

    async def _take_over(self, old: "_Dumpcap", put: FrameSink) -> None:
        try:
            new = await self._start()
        except ProbeUnavailable:  # so the old one will end soon, too
            return
        self._dumpcap = new
        old.hang_up()
        seen_by_both: list[bytes] = []

        async def put_and_remember(frames: list[bytes]) -> None:
            seen_by_both.extend(map(captured_bytes, frames))
            await put(frames)

        await _relay(old, put_and_remember, STOP_SECONDS)
        await old.end()
        self._counts.dropped[DropSite.KERNEL] += old.dropped
        new.leave_out(seen_by_both)


async def _relay(dumpcap: "_Dumpcap", put: FrameSink, seconds: float | None) -> bool:
    """Whether dumpcap ended within this time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (frames := await dumpcap.frames()) is not None:
                await put(frames)
            return True
    return False


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
        self._left_out: Counter[bytes] = Counter()
        self._to_compare = 0
        self._said = asyncio.ensure_future(last_words_of(process))

    @classmethod
    async def start(cls, program: str, interface: str, expression: str, blocks: BlockReader) -> Self:
        """Returns when it captures. Raises ProbeUnavailable."""
        held, given = os.openpty()
        try:
            process = await asyncio.create_subprocess_exec(
                *("setsid", "--ctty", program, "-q", "-p", "-B", str(KERNEL_BUFFER_MIB)),
                *("-i", interface, "-f", expression, "-w", "-"),
                stdin=given,
                stdout=PIPE,
                stderr=PIPE,
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
            async with asyncio.timeout(START_SECONDS):
                while not blocks.has_begun and (frames := await self.frames()) is not None:
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
    def dropped(self) -> int:
        """Known only at its end."""
        return self._blocks.dropped

    async def frames(self) -> list[bytes] | None:
        """The next ones; None at its end."""
        if self._first:
            frames, self._first = self._first, []
            return frames
        piece = await self._process.stdout.read(READ_BYTES)  # type: ignore[union-attr]  # it is a pipe
        if not piece:
            return None
        try:
            frames = self._blocks.read(piece)
        except NotPcapng:  # nothing of use will come any more
            return None
        return self._compared(frames) if self._to_compare else frames

    def leave_out(self, frames: list[bytes]) -> None:
        """Of the frames to come, the first may be copies of these."""
        self._left_out.update(frames)
        self._to_compare = len(frames)

    def _compared(self, frames: list[bytes]) -> list[bytes]:
        """Copies come in the same order, in front of all others: after as many frames there are no more."""
        kept: list[bytes] = []
        for frame in frames:
            data = captured_bytes(frame)
            if self._to_compare > 0 and self._left_out[data] > 0:
                self._left_out[data] -= 1
            else:
                kept.append(frame)
            self._to_compare -= 1
        if self._to_compare <= 0:
            self._to_compare = 0
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
            async with asyncio.timeout(STOP_SECONDS):
                while await self.frames() is not None:
                    pass  # its last block says what was dropped
                await self._process.wait()
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                self._process.kill()
                await self._process.wait()
        await self._said


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
