"""One target in one process, in one of the ways of `Way`. Started by `tests.fuzz`; says what came of it in a
file of JSON.

The input that is being tried stands in a file, too: where the process dies of it, that is all that is left.
"""

import argparse
import gc
import importlib
import json
import mmap
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import IO, Final, Protocol, Self, cast

from tests.fuzz.mutations import mutate
from tests.fuzz.pure import import_sources, is_compiled
from tests.fuzz.trial import CPU_LIMIT_NS, Trials

TARGETS_PACKAGE: Final = "tests.fuzz.targets."
MEMORY_LIMIT_BYTES: Final = 3 << 30
"""Of the whole process: what would fill the machine ends here, with a MemoryError."""
GROWTH_LIMIT_BYTES: Final = 8 << 20
"""Of what a process holds, over the second half of its inputs; chosen above what the allocator does of its
own accord. A leak of one object an input is many times that."""
INSTRUMENTED_FACTOR: Final = 5
"""How much longer the sources take, when each of their branches is noted (measured: 3 to 5 times)."""
_BATCH: Final = 256
_LARGEST_INPUT_BYTES: Final = 1 << 16
_LENGTH: Final = struct.Struct("=I")
_DIGEST_BYTES: Final = 8


class Way(StrEnum):
    COVERAGE = "coverage"
    """Sources, mutated by libFuzzer, which keeps what leads to new places in them."""
    HAVOC = "havoc"
    """Compiled, mutated blindly from what coverage has found; memory must not grow."""
    COMPARE = "compare"
    """As havoc, and what comes of each input must be what comes of it in a process that runs the sources."""
    ANSWER = "answer"
    """That process: inputs from standard input, digests to standard output."""


class Target(Protocol):
    """A module of tests.fuzz.targets."""

    MAX_BYTES: int
    """Of an input."""
    WORDS: tuple[bytes, ...]
    """What the format is made of."""

    def check(self, data: bytes) -> object: ...

    def seeds(self) -> Iterator[bytes]: ...


class LastInput:
    """The input that is being tried, where another process finds it."""

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as file:
            file.truncate(_LENGTH.size + _LARGEST_INPUT_BYTES)
            self._memory = mmap.mmap(file.fileno(), 0)

    def note(self, data: bytes) -> None:
        end = _LENGTH.size + len(data)
        self._memory[:end] = _LENGTH.pack(len(data)) + data


def read_last_input(path: Path) -> bytes:
    """What a process noted before it died."""
    noted = path.read_bytes()
    (length,) = _LENGTH.unpack_from(noted)
    return noted[_LENGTH.size : _LENGTH.size + length]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("way", type=Way)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--failures", type=Path)
    parser.add_argument("--result", type=Path)
    parser.add_argument("--package", default=TARGETS_PACKAGE)
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    if asked.way is Way.ANSWER:
        import_sources()
        answer(load(asked.target).check)
    elif asked.way is Way.COVERAGE:
        import_sources()
        run_libfuzzer(asked)
    else:
        run_havoc(asked)


def load(name: str, package: str = TARGETS_PACKAGE) -> Target:
    """A target by its name."""
    return cast("Target", importlib.import_module(f"{package}{name}"))


def cpu_limit_ns(target: Target) -> int:
    """Its own, or everybody's."""
    limit: int = getattr(target, "CPU_LIMIT_NS", CPU_LIMIT_NS)
    return limit


# ------------------------------------------------------------------ coverage


def run_libfuzzer(asked: argparse.Namespace) -> None:
    import atheris  # noqa: PLC0415  # only here: it is large, and changes how Python imports

    with atheris.instrument_imports(include=["monitor", "probes"]):
        target = load(asked.target, asked.package)
    assert not is_compiled()
    trials = Trials(target.check, asked.failures, INSTRUMENTED_FACTOR * cpu_limit_ns(target))
    last = LastInput(asked.result.with_suffix(".last"))
    write_seeds(target, asked.corpus)
    words = asked.result.with_suffix(".words")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.WORDS))
    written_at = time.monotonic()

    def try_one(data: bytes) -> None:
        nonlocal written_at
        last.note(data)
        trials.try_one(data)
        # libFuzzer ends the process itself.
        if trials.inputs % _BATCH == 0 and time.monotonic() - written_at > 1:
            written_at = time.monotonic()
            write_result(asked.result, trials)

    write_result(asked.result, trials)
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={max(1, int(asked.seconds))}",
            f"-max_len={target.MAX_BYTES}",
            f"-dict={words}",
            f"-seed={asked.seed}",
            "-rss_limit_mb=0",  # it asks for memory maps that RLIMIT_AS counts; that bound is enough
            "-print_final_stats=1",
            "-verbosity=1",
            "-timeout=60",
            f"-artifact_prefix={asked.failures}/",
            str(asked.corpus),
        ],
        try_one,
    )
    atheris.Fuzz()


def write_seeds(target: Target, corpus: Path) -> None:
    """Into the corpus, beside what was found before."""
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        data = seed[: target.MAX_BYTES]
        (corpus / blake2b(data, digest_size=10).hexdigest()).write_bytes(data)


def read_corpus(target: Target, corpus: Path) -> list[bytes]:
    found = {seed[: target.MAX_BYTES] for seed in target.seeds()}
    if corpus.is_dir():
        found |= {path.read_bytes()[: target.MAX_BYTES] for path in corpus.iterdir()}
    return sorted(found)


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


# ------------------------------------------------------------------ havoc


def run_havoc(asked: argparse.Namespace) -> None:
    target = load(asked.target, asked.package)
    if not is_compiled():
        sys.exit("nothing is compiled here: run `make setup`")
    trials = Trials(target.check, asked.failures, cpu_limit_ns(target))
    last = LastInput(asked.result.with_suffix(".last"))
    corpus = read_corpus(target, asked.corpus)
    rng = Random(asked.seed)
    until = time.monotonic() + asked.seconds
    middle = time.monotonic() + asked.seconds / 2
    memory: tuple[int, int] | None = None
    with Twin(asked.target) if asked.way is Way.COMPARE else NoTwin() as twin:
        fresh = corpus  # as they are first
        while time.monotonic() < until:
            outcomes = []
            for data in fresh:
                last.note(data)
                outcomes.append(trials.try_one(data))
            twin.compare(fresh, outcomes, trials)
            fresh = [mutate(rng, corpus, target.WORDS, target.MAX_BYTES) for _ in range(_BATCH)]
            if memory is None and time.monotonic() >= middle:
                memory = _memory()
    del fresh, outcomes
    extra: dict[str, object] = {"corpus": len(corpus)}
    if memory is not None:
        grown = [after - before for before, after in zip(memory, _memory(), strict=True)]
        extra |= {"grown_kilobytes": grown[0] // 1024, "grown_blocks": grown[1]}
        if grown[0] > GROWTH_LIMIT_BYTES:
            trials.fail(
                "memory", b"", f"grew by {grown[0]} bytes and {grown[1]} blocks in {trials.inputs} inputs"
            )
    write_result(asked.result, trials, **extra)


def _memory() -> tuple[int, int]:
    """What the process holds: bytes of real memory, and blocks of Python's allocator."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return resident * resource.getpagesize(), sys.getallocatedblocks()


class NoTwin:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def compare(self, inputs: list[bytes], outcomes: list[object], trials: Trials) -> None:
        pass


class Twin(NoTwin):
    """The same target in a process that runs the sources."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-m", "tests.fuzz.worker", name, Way.ANSWER]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def compare(self, inputs: list[bytes], outcomes: list[object], trials: Trials) -> None:
        """Of each input, whether it came to the same."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for data in inputs:
            self._process.stdin.write(_LENGTH.pack(len(data)) + data)
        self._process.stdin.flush()
        for data, outcome in zip(inputs, outcomes, strict=True):
            if self._process.stdout.read(_DIGEST_BYTES) != digest(outcome):
                trials.fail("another outcome", data, f"compiled: {outcome!r}")


def answer(check: Callable[[bytes], object]) -> None:
    """Reads inputs, each with its length before it, and answers each with the digest of its outcome. The
    digests of a batch are less than a pipe holds, so that nobody waits for the other."""
    assert not is_compiled()
    trials = Trials(check, Path("/nonexistent"))
    trials.fail = lambda kind, data, why: None  # type: ignore[method-assign]  # the other one writes it down
    while head := sys.stdin.buffer.read(_LENGTH.size):
        data = _exactly(sys.stdin.buffer, _LENGTH.unpack(head)[0])
        sys.stdout.buffer.write(digest(trials.try_one(data)))
        sys.stdout.buffer.flush()


def _exactly(file: IO[bytes], size: int) -> bytes:
    return file.read(size) if size else b""


def digest(outcome: object) -> bytes:
    return blake2b(repr(outcome).encode("utf-8", "backslashreplace"), digest_size=_DIGEST_BYTES).digest()


# ------------------------------------------------------------------ what is said of it


def write_result(path: Path, trials: Trials, **extra: object) -> None:
    said = {
        "inputs": trials.inputs,
        "cpu_seconds": time.process_time(),
        "slowest_ms": round(trials.slowest_ns / 1e6, 2),
        "slowest": trials.slowest.hex(),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "failures": sorted(trials.found),
    }
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(said | extra))
    fresh.replace(path)


if __name__ == "__main__":
    main()
