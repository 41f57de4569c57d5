"""One input tried: what came of it, what it raised, how long it took.

Whatever is found wrong is written into a folder: the input in `NAME`, why in `NAME.txt`.
"""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

CPU_LIMIT_NS: Final = 10_000_000
"""What the processor may take over one input, its checks included. A session is read at a megabyte a second
or more; the largest inputs have 1,500 bytes."""
MEASUREMENTS: Final = 4
"""Of an input that seems slow: the quickest counts. Another program that shares the processor's caches, the
garbage collector or an interrupt make one slow, not all."""

Check = Callable[[bytes], object]
"""Tries an input, raises where something is wrong, and says what came of it, in values whose `repr` is the
same in every process."""


@dataclass
class Trials:
    """Tries inputs, and keeps account."""

    check: Check
    failures: Path
    """The folder for what is found wrong."""
    cpu_limit_ns: int = CPU_LIMIT_NS
    inputs: int = 0
    slowest_ns: int = 0
    slowest: bytes = b""
    found: set[str] = field(default_factory=set)
    """Each kind of failure is kept once: by what was raised, and where."""

    def try_one(self, data: bytes) -> object:
        """What came of it, or the name of what it raised."""
        self.inputs += 1
        begin = time.process_time_ns()
        try:
            outcome = self.check(data)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} {place.filename}:{place.lineno}"
            self.fail(kind, data, traceback.format_exc())
            return type(error).__name__
        spent = time.process_time_ns() - begin
        if spent > self.slowest_ns:
            self._slow(data, spent)
        return outcome

    def fail(self, kind: str, data: bytes, why: str) -> None:
        """Writes an input down, if it is the first of its kind."""
        if kind in self.found:
            return
        self.found.add(kind)
        self.failures.mkdir(parents=True, exist_ok=True)
        name = sha256(data).hexdigest()[:16]
        (self.failures / name).write_bytes(data)
        (self.failures / f"{name}.txt").write_text(f"{kind}\n\n{why}")

    def _slow(self, data: bytes, spent: int) -> None:
        """The slowest yet, if it is so again."""
        for _ in range(MEASUREMENTS - 1):
            begin = time.process_time_ns()
            self.check(data)
            spent = min(spent, time.process_time_ns() - begin)
            if spent <= self.slowest_ns:
                return
        self.slowest_ns, self.slowest = spent, data
        if spent > self.cpu_limit_ns:
            self.fail("slow", data, f"{spent / 1e6:.1f} ms of processor time, for {len(data)} bytes")
