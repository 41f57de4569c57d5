"""`smtp-horizon read` in a flood, through a pipe: what it recorded, and what it took."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.bench import launcher
from tests.floods.capture import Tap
from tests.floods.floods import ORDINARY_SENDER, Flood
from tests.lab.watch import PROGRAM

_SENDERS: Final = ORDINARY_SENDER.partition("{}")[0]


@dataclass(slots=True)
class Outcome:
    packets: int = 0
    records: int = 0
    """Of the flood's own connections."""
    ordinary: list[dict[str, Any]] = field(default_factory=list)
    longest_record_bytes: int = 0
    peak_bytes: int = 0
    """Resident, at the most."""
    processor_seconds: float = 0.0
    status: int = 0

    def take(self, records: Path) -> None:
        with records.open("rb") as lines:
            for line in lines:
                self.longest_record_bytes = max(self.longest_record_bytes, len(line))
                record = json.loads(line) if len(line) < 10_000 else {"transactions": []}
                senders = [one["mail_from"] or "" for one in record["transactions"]]
                if senders and senders[0].startswith(_SENDERS):
                    self.ordinary.append(record)
                else:
                    self.records += 1


def read(flood: Flood, size: int) -> Outcome:
    """`size`: of the flood."""
    outcome = Outcome()
    with TemporaryDirectory() as folder:
        records = Path(folder) / "records"  # a pipe, as there may be a gigabyte of them
        os.mkfifo(records)
        taking = threading.Thread(target=outcome.take, args=(records,))
        taking.start()
        command: list[str | Path] = [sys.executable, "-I", "-S", launcher.__file__, records]
        command += [PROGRAM, "read", "--format", "jsonl", "-"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1 << 20
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            tap = Tap(process.stdin, step_us=flood.step_us)
            flood.write(tap, size)
            process.stdin.close()
            cost = json.loads(process.stdout.read())
        taking.join()
    outcome.packets = tap.packets
    outcome.status = cost["status"]
    outcome.peak_bytes = cost["peak_bytes"]
    outcome.processor_seconds = cost["processor_seconds"]
    return outcome
