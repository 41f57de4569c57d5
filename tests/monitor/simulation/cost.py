"""What a record costs the simulation: `python -m tests.monitor.simulation.cost [ROWS]`.

Every table is filled first, with as many rows as asked; then records come, each of a new triplet, so that
every one of them also makes the oldest forgotten. docs/simulation.md has the figures.
"""

import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from monitor.sessions.record import Endpoint, GreylisterReach, Reach, SessionRecord, TransactionOutcome
from monitor.simulation.simulation import Simulation
from tests.monitor.conftest import CLEARTEXT

RECORDS: Final = 20_000
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
DECIDED: Final = {name: GreylisterReach(Reach.DECIDED) for name in ("greylite", "policy_service")}


def record(number: int) -> SessionRecord:
    """A clear session of a client, sender and recipient that never came before, ten a second."""
    transaction = CLEARTEXT.transactions[0]
    recipient = replace(transaction.recipients[0], address=f"b{number}@example.test")
    return replace(
        CLEARTEXT,
        start=(BEGIN + timedelta(seconds=number / 10)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        client=Endpoint(
            f"{10 + number % 90}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 40_000
        ),
        auth=(),
        greylisters=DECIDED,
        transactions=(
            replace(
                transaction,
                mail_from=f"a{number}@client.example",
                recipients=(recipient,),
                outcome=TransactionOutcome.ACCEPTED,
            ),
        ),
    )


def fill(simulation: Simulation, rows: int) -> None:
    """Straight into the tables, whose keys are as random as digests."""
    oldest_us = int(BEGIN.timestamp() * 1e6) - 3_600_000_000
    connection = simulation._store.connection
    for table in ("greylite_pending", "postgrey_pending"):
        connection.executemany(
            f"INSERT INTO {table} VALUES (?, ?, ?, 0)",
            ((os.urandom(16), os.urandom(16), oldest_us + at) for at in range(rows)),
        )
    for table in ("greylite_verified", "postgrey_passed", "postgrey_clients"):
        connection.executemany(
            f"INSERT INTO {table} VALUES (?, ?, ?, 1)",
            ((os.urandom(16), oldest_us + at, oldest_us + at) for at in range(rows)),
        )
    simulation.close()


def measure(names: tuple[str, ...], path: Path | None, rows: int) -> None:
    simulation = Simulation(names, path, limit_rows=rows)
    times = []
    for number in range(RECORDS):
        came = record(number)
        begin = time.perf_counter()
        simulation.record(came)
        times.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    simulation.close()
    closing = time.perf_counter() - begin
    times.sort()
    print(
        f"{'+'.join(names):<18} {'memory' if path is None else 'file':<7}"
        f" mean {sum(times) / RECORDS * 1e6:6.1f} µs  median {times[RECORDS // 2] * 1e6:6.1f} µs"
        f"  p99.9 {times[-RECORDS // 1000] * 1e3:6.1f} ms  longest {times[-1] * 1e3:6.1f} ms"
        f"  close {closing * 1e3:6.1f} ms"
    )


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    for names in (("greylite",), ("postgrey",), ("greylite", "postgrey")):
        measure(names, None, rows)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "state"
            fill(Simulation(("greylite", "postgrey"), path), rows)
            print(f"  {rows} rows a table: {path.stat().st_size / 1e6:.0f} MB")
            begin = time.perf_counter()
            Simulation(names, path, limit_rows=rows).close()
            print(f"  opened and closed in {(time.perf_counter() - begin) * 1e3:.0f} ms")
            measure(names, path, rows)


if __name__ == "__main__":
    main()
