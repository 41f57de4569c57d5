"""The pyshark probe: segments of files or interfaces, as Wireshark's programs see them."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from probes.capabilities import Capability, Needs
from probes.pcap.filter import kernel_filter
from probes.pcap.opening import STANDARD_INPUT, CutShort
from probes.probe import (
    HEARTBEAT_SECONDS,
    CaptureFileError,
    CaptureInterrupted,
    PacketCounts,
    ProbeUnavailable,
)
from probes.segment import Segment
from probes.tshark.blocks import Interfaces
from probes.tshark.dissector import FRAMES_PER_TSHARK, Dissector
from probes.tshark.dumpcap import ANY, InterfaceSource
from probes.tshark.editcap import FileSource
from probes.tshark.programs import Programs


class _TsharkProbe:
    """What files and interfaces share: a dissector, and an event loop that runs while a batch is awaited."""

    name: Final = "pyshark"
    sieve: Final = None
    filter_variant: Final = None

    def __init__(self, tshark: str, ports: frozenset[int], frames_per_tshark: int) -> None:
        self.counts = PacketCounts()
        self._interfaces = Interfaces()
        self._loop = asyncio.new_event_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._dissector = Dissector(
            tshark, ports, self.counts, self._interfaces, frames_per_tshark=frames_per_tshark
        )

    def _begin(self, *coroutines: Coroutine[Any, Any, None]) -> None:
        self._tasks += [self._loop.create_task(coroutine) for coroutine in coroutines]

    def _next_batch(self) -> list[Segment]:
        """What comes within a heartbeat. Raises what ended a task."""
        self._loop.run_until_complete(self._wait())
        batch = self._dissector.take()
        if not batch:
            for task in self._tasks:
                if task.done():
                    task.result()
        return batch

    def _is_done(self) -> bool:
        return all(task.done() for task in self._tasks)

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._dissector.settled.wait()

    def is_caught_up(self) -> bool:
        return self._dissector.is_idle

    def close(self) -> None:
        if self._loop.is_closed():
            return
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)


def why_unavailable() -> ProbeUnavailable | None:
    """Why the pyshark probe can't capture here, found by trying on all interfaces; None when it can."""
    try:
        LiveTsharkProbe([ANY], frozenset((25,))).close()
    except ProbeUnavailable as reason:
        return reason
    return None


class TsharkFilesProbe(_TsharkProbe):
    """Segments of files in any format that Wireshark knows; `-` is standard input. A `probes.probe.Probe`.

    Every input is opened on construction, so that what can't be read is said before anything is done.
    """

    total_bytes: Final = None
    """Not known in the unit of what `progress` is told."""

    def __init__(
        self,
        paths: Sequence[str],
        ports: frozenset[int],
        *,
        progress: Callable[[int], None] | None = None,
        frames_per_tshark: int = FRAMES_PER_TSHARK,
    ) -> None:
        """`progress` is told, once a batch, how many bytes of packets were read.

        Raises ProbeUnavailable, CaptureFileError.
        """
        programs = Programs.find("editcap")
        super().__init__(programs.tshark, ports, frames_per_tshark)
        self._progress = progress
        self._read_bytes = 0
        self._sources: list[FileSource] = []
        self._troubles: list[str] = []
        self._remedies: dict[str, None] = {}
        try:
            if paths.count(STANDARD_INPUT) > 1:
                raise CaptureFileError("standard input was named twice; it can be read only once")
            for path in paths:
                self._sources.append(FileSource(path, programs.source, self._interfaces))
        except BaseException:
            self.close()
            raise

    def interfaces_up(self) -> dict[str, bool]:
        """Empty: there is no interface."""
        return {}

    def batches(self) -> Iterator[Sequence[Segment]]:
        """Segments of all files. Raises CaptureInterrupted at the end if a file ended before its time."""
        self._begin(self._relay(), self._dissector.run())
        while not self._is_done():
            batch = self._next_batch()
            if self._progress is not None:
                self._progress(self._read_bytes)
            if batch:
                yield batch
        yield self._next_batch()
        if self._troubles:
            troubles = "; ".join(self._troubles)
            raise CaptureInterrupted(
                f"{troubles}; all before was read; for the rest, {'; '.join(self._remedies)}"
            )

    def stop(self) -> None:
        """Changes nothing."""

    async def _relay(self) -> None:
        try:
            for source in self._sources:
                try:
                    await source.run(self._put)
                except CutShort as trouble:
                    self._troubles.append(f"{source.name}: {trouble} after {source.frames_read} packets")
                    self._remedies[trouble.remedy] = None
        finally:
            self._dissector.finish()

    async def _put(self, frames: list[bytes]) -> None:
        self._read_bytes += sum(map(len, frames))
        await self._dissector.put(frames)

    def close(self) -> None:
        super().close()
        for source in self._sources:
            source.close()


class LiveTsharkProbe(_TsharkProbe):
    """Segments from interfaces: this machine's, `any`, and what else dumpcap can read, such as a named pipe
    or `TCP@host:port`. A `probes.probe.Probe`.

    An interface that goes away is tried again every few seconds; the others go on.
    """

    def __init__(
        self,
        interfaces: Sequence[str],
        ports: frozenset[int],
        *,
        give_up: Callable[[Needs], None] = lambda _: None,
        frames_per_tshark: int = FRAMES_PER_TSHARK,
    ) -> None:
        """`give_up` is called before any program is started that could have more privileges than it needs.

        dumpcap's file may have both capabilities, and the kernel starts it only if both can be had.
        Raises ProbeUnavailable, and what `give_up` raises.
        """
        programs = Programs.find("dumpcap")
        to_capture = frozenset({Capability.NET_ADMIN, Capability.NET_RAW})
        give_up(Needs(to_capture, (programs.source, programs.tshark)))
        super().__init__(programs.tshark, ports, frames_per_tshark)
        expression = kernel_filter(ports)
        self._sources = [
            InterfaceSource(name, programs.source, expression, self._interfaces, self.counts)
            for name in dict.fromkeys(interfaces)
        ]
        try:
            for source in self._sources:
                self._loop.run_until_complete(source.open())
        except BaseException:
            self.close()
            raise

    def interfaces_up(self) -> dict[str, bool]:
        return {source.name: source.is_up for source in self._sources}

    def batches(self) -> Iterator[Sequence[Segment]]:
        """Segments as they come, and an empty batch where none came for a heartbeat; after `stop`, the rest.

        Raises CaptureInterrupted when tshark does not stay alive.
        """
        self._begin(self._capture(), self._dissector.run())
        while not self._is_done():
            yield self._next_batch()
        yield self._next_batch()

    def stop(self) -> None:
        for source in self._sources:
            source.stop()

    async def _capture(self) -> None:
        try:
            await asyncio.gather(*(source.run(self._dissector.put) for source in self._sources))
        finally:
            self._dissector.finish()

    async def _end(self) -> None:
        await super()._end()
        for source in self._sources:
            await source.close()
