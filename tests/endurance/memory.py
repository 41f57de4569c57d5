"""How much memory a program and all that it started take, second by second, and whether that grows."""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import psutil

EVERY_SECONDS: Final = 1.0
MAIN: Final = "smtp-horizon"

# How much more the last third may take than the first. Chosen above what sound runs were seen to differ by
# (3 MiB), and as a fifth of what tshark grows by when nobody replaces it: 64 MiB in a million packets.
TOLERANCE_BYTES: Final = 12 * 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    at_seconds: float
    """Since the sampling began."""
    process: int
    program: str
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Of all processes of one program."""

    program: str
    processes: int
    """How many there were, one after the other or at once."""
    at_once: int
    """The most that ran at the same time."""
    first_bytes: int
    """The most that one of them took in the first third of the run."""
    last_bytes: int
    """The same in the last third."""
    peak_bytes: int
    final_bytes: int
    """The last that was seen."""

    @property
    def growth_bytes(self) -> int:
        return self.last_bytes - self.first_bytes


def figures(samples: Iterable[Sample]) -> list[Figures]:
    """For each program that was there in the first and in the last third, the main program first."""
    ordered = sorted(samples, key=lambda sample: sample.at_seconds)
    ends = ordered[-1].at_seconds if ordered else 0.0
    found = []
    for program in sorted({sample.program for sample in ordered}, key=lambda name: (name != MAIN, name)):
        mine = [sample for sample in ordered if sample.program == program]
        first = _most(sample for sample in mine if sample.at_seconds <= ends / 3)
        last = _most(sample for sample in mine if sample.at_seconds >= ends * 2 / 3)
        if first and last:
            times = [sample.at_seconds for sample in mine]
            found.append(
                Figures(
                    program,
                    processes=len({sample.process for sample in mine}),
                    at_once=max(map(times.count, set(times))),
                    first_bytes=first,
                    last_bytes=last,
                    peak_bytes=_most(mine),
                    final_bytes=mine[-1].resident_bytes,
                )
            )
    return found


def growing(samples: Iterable[Sample], tolerances_bytes: Mapping[str, int] | None = None) -> list[str]:
    """A line for each program that took more in the last third of the run than in the first.

    `tolerances_bytes`: of programs that have a reason for more than the others.
    """
    return [
        f"{one.program}: {one.first_bytes / 2**20:.1f} MiB in the first third, "
        f"{one.last_bytes / 2**20:.1f} MiB in the last"
        for one in figures(samples)
        if one.growth_bytes > (tolerances_bytes or {}).get(one.program, TOLERANCE_BYTES)
    ]


class Sampler:
    """Looks at a process and its descendants in a thread of its own; a context manager.

    Begun when the program is up: what it takes to start is no growth, and would hide some.
    """

    def __init__(self, process: int, *, every_seconds: float = EVERY_SECONDS) -> None:
        self.samples: list[Sample] = []
        self._every_seconds = every_seconds
        self._process = psutil.Process(process)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def descendants(self) -> list[psutil.Process]:
        """Empty when it has ended."""
        try:
            return self._process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(self._every_seconds):
            self._look(time.monotonic() - begun)

    def _look(self, at_seconds: float) -> None:
        for process in (self._process, *self.descendants()):
            try:
                name, taken = process.name(), process.memory_info().rss
                is_copy = process != self._process and name == self._process.name()
            except psutil.NoSuchProcess:
                continue
            # A child that is still a copy of its parent is no program yet; a dead one takes nothing.
            if taken and not is_copy:
                program = MAIN if process == self._process else name
                self.samples.append(Sample(at_seconds, process.pid, program, taken))


def _most(samples: Iterable[Sample]) -> int:
    return max((sample.resident_bytes for sample in samples), default=0)
