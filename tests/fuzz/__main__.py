"""Fuzzing: `python -m tests.fuzz [TARGET...] [--seconds N]`; without a target, all.

Each target's time is divided into three:

    coverage   the sources, through atheris: what leads to new places in them joins the corpus
    havoc      the compiled code, mutations of that corpus; memory must not grow meanwhile
    compare    the same, and each outcome is held against that of the sources

What is found wrong is in build/fuzz/failures/TARGET: an input in each file, and in `.txt` beside it what it
did.
`python -m tests.fuzz.again TARGET FILE...` tries it again.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from scripts.native import ROOT
from tests.fuzz.folders import BUILD
from tests.fuzz.trial import Trials
from tests.fuzz.worker import TARGETS_PACKAGE, Way, read_last_input

TARGETS: Final = sorted(path.stem for path in (Path(__file__).parent / "targets").glob("*.py"))
SHARES: Final = {Way.COVERAGE: 0.3, Way.HAVOC: 0.5, Way.COMPARE: 0.2}
DEFAULT_SECONDS: Final = 120
_STARTING_SECONDS: Final = 60
"""How much longer than its time a process may take, to start and to end."""
_LOG_LINES: Final = 30
_WITHOUT_COVERAGE: Final = (
    frozenset({"simulated"}) if find_spec("atheris") is not None else frozenset(TARGETS)
)
"""The inputs of that one are numbers; and there is no atheris for every machine."""


@dataclass(frozen=True, slots=True)
class Run:
    """One target, in one way."""

    target: str
    way: Way
    seconds: float
    result: dict[str, Any]


def _seed() -> int:
    """CI begins the same way every time, so that what it says of a change is about the change."""
    return 1 if os.environ.get("CI") else SystemRandom().getrandbits(30)


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="for all of them together")
    parser.add_argument(
        "--way", type=Way, action="append", choices=list(SHARES), help="only this; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=_seed(), help="of all that is random")
    parser.add_argument("--folder", type=Path, default=BUILD, help="for the corpus, failures and logs")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    targets = [name for name in TARGETS if name in asked.targets or not asked.targets]
    ways = {way: share for way, share in SHARES.items() if not asked.way or way in asked.way}
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(f"{asked.seconds:g} s for {', '.join(targets)}; --seed {asked.seed}", highlight=False)
    rng = Random(asked.seed)
    runs = []
    for target in targets:
        mine = {
            way: share
            for way, share in ways.items()
            if way is not Way.COVERAGE or target not in _WITHOUT_COVERAGE
        }
        for way, share in mine.items():
            seconds = asked.seconds / len(targets) * share / sum(mine.values())
            runs.append(run(target, way, seconds, rng.getrandbits(30), asked.folder))
    console.print(table_of(runs))
    wrong = [(run.target, name) for run in runs for name in run.result["failures"]]
    for target, name in wrong:
        console.print(
            f"[bold red]{target}[/]: {name}; see {asked.folder / 'failures' / target}", highlight=False
        )
    return 1 if wrong else 0


def run(
    target: str, way: Way, seconds: float, seed: int, folder: Path, *, package: str = TARGETS_PACKAGE
) -> Run:
    """In a process of its own, which may die of it."""
    failures = folder / "failures" / target
    failures.mkdir(parents=True, exist_ok=True)
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    result = logs / f"{target}.{way}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.worker", target, way, "--package", package]
    command += ["--seconds", str(seconds), "--seed", str(seed), "--result", str(result)]
    command += ["--corpus", str(folder / "corpus" / target), "--failures", str(failures)]
    log = result.with_suffix(".log")
    with log.open("wb") as output:
        try:
            code = subprocess.run(
                command,
                cwd=ROOT,
                stdout=output,
                stderr=output,
                timeout=seconds + _STARTING_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    said: dict[str, Any] = (
        json.loads(result.read_text()) if result.exists() else {"inputs": 0, "failures": []}
    )
    text = log.read_text(errors="replace")
    if code != 0:
        said["failures"].append(_died(code, text, result.with_suffix(".last"), failures))
    if way is Way.COVERAGE:
        said |= _of_libfuzzer(text)
    return Run(target, way, seconds, said)


def _died(code: int, log: str, last: Path, failures: Path) -> str:
    """The process is gone: by a signal, most likely."""
    kind = "hung" if code == -1 else f"died with {code}"
    trials = Trials(lambda _: None, failures)
    trials.fail(
        kind, read_last_input(last) if last.exists() else b"", "\n".join(log.splitlines()[-_LOG_LINES:])
    )
    return kind


def _of_libfuzzer(log: str) -> dict[str, Any]:
    """`#9 DONE cov: 5 ft: 7 corp: 3/12b ...` and `stat::number_of_executed_units: 9`."""
    said: dict[str, Any] = {}
    for line in log.splitlines():
        words = line.split()
        if " cov: " in line and " corp: " in line:
            said |= {"coverage": int(words[words.index("cov:") + 1])}
            said |= {"corpus": int(words[words.index("corp:") + 1].partition("/")[0])}
        elif line.startswith("stat::number_of_executed_units"):
            said["inputs"] = int(words[-1])
    return said


def table_of(runs: list[Run]) -> Table:
    table = Table(title="inputs")
    names = (
        "inputs",
        "a second",
        "corpus",
        "coverage",
        "slowest ms",
        "bytes",
        "peak MB",
        "grown kB",
        "blocks",
        "wrong",
    )
    for name in ("target", "way"):
        table.add_column(name)
    for name in names:
        table.add_column(name, justify="right")
    for run in runs:
        said = run.result
        table.add_row(
            run.target,
            run.way,
            f"{said['inputs']:,}",
            f"{said['inputs'] / run.seconds:,.0f}",
            *(str(said.get(name, "")) for name in ("corpus", "coverage", "slowest_ms")),
            str(len(said.get("slowest", "")) // 2),
            *(str(said.get(name, "")) for name in ("peak_megabytes", "grown_kilobytes", "grown_blocks")),
            str(len(said["failures"])),
        )
    table.add_section()
    table.add_row("all", "", f"{sum(run.result['inputs'] for run in runs):,}", *[""] * (len(names) - 1))
    return table


if __name__ == "__main__":
    sys.exit(main())
