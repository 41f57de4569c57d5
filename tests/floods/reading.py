"""`smtp-horizon read` in a flood, through a pipe: what it recorded, and what it took."""

import json
import os
import subprocess
import threading
from dataclasses import dataclass, field
from typing import IO, Any, Final

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
    said: str = ""

    def take(self, lines: IO[bytes]) -> None:
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
    process = subprocess.Popen(
        [PROGRAM, "read", "--format", "jsonl", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=1 << 20,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    taking = threading.Thread(target=outcome.take, args=(process.stdout,))
    taking.start()
    tap = Tap(process.stdin, step_us=flood.step_us)
    flood.write(tap, size)
    process.stdin.close()
    taking.join()
    outcome.said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    outcome.status = process.returncode = os.waitstatus_to_exitcode(status)
    outcome.peak_bytes = usage.ru_maxrss * 1024
    outcome.processor_seconds = usage.ru_utime + usage.ru_stime
    outcome.packets = tap.packets
    for pipe in (process.stdout, process.stderr):
        pipe.close()
    return outcome
