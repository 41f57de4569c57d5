"""The table on disk: it outlives restarts and kills, shows nobody an address, and has a bound."""

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from monitor.simulation.simulation import Simulation
from monitor.simulation.state_file import KEY_BYTES, STATE_VERSION, SimulationStateError
from monitor.simulation.store import COMMIT_CHANGES, COMMIT_SECONDS, Store
from monitor.simulation.tables import OWNER_ROWS, STEP_ROWS
from monitor.simulation.tallies import Greylister
from tests.monitor.simulation.sessions import (
    DAY,
    HOUR,
    at_ns,
    decided,
    each_decision,
    ended,
    hidden,
    mail,
    much_later,
    session,
)

BOTH = ("greylite", "postgrey")
GREYLITE = Greylister.GREYLITE
ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "simulation.sqlite"


@contextmanager
def simulating(path: Path | None, *names: str, limit_rows: int = 1_000) -> Iterator[Simulation]:
    simulation = Simulation(names or BOTH, path, limit_rows=limit_rows)
    yield simulation
    simulation.close()


def run(code: str, path: Path, *, kill: bool = False) -> "subprocess.Popen[str]":
    """Another program, which says "ready" when it has done what it was told; it then waits for its end."""
    program = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\ninput()", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    if kill:
        program.send_signal(signal.SIGKILL)
        program.communicate(timeout=30)
    return program


def end(program: "subprocess.Popen[str]") -> None:
    program.communicate("\n", timeout=30)


OPEN = """
import sys
from pathlib import Path
from monitor.simulation.simulation import Simulation
from tests.monitor.simulation.sessions import *
simulation = Simulation(("greylite", "postgrey"), Path(sys.argv[1]))
"""

# ---------------------------------------------------------------------- restarts and kills


def test_a_restart_in_the_middle_changes_no_decision(path: Path) -> None:
    with simulating(path) as simulation:
        assert each_decision(simulation, session(0, mail())) == [["deferred", "deferred"]]
    with simulating(path) as simulation:
        assert simulation.pending == {("greylite",): 1, ("postgrey",): 1}
        assert decided(simulation) == {}, "counters begin anew"
        assert each_decision(simulation, session(300, mail())) == [["passed_on_retry", "passed_on_retry"]]
    with simulating(path) as simulation:
        assert simulation.known == {("greylite",): 1, ("postgrey",): 1}
        assert each_decision(simulation, session(301, mail())) == [["passed_known", "passed_known"]]


def test_without_a_path_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with simulating(None, "greylite") as simulation:
            assert each_decision(simulation, session(0, mail())) == [["deferred"]]
    assert list(tmp_path.iterdir()) == []


def test_a_kill_loses_what_came_since_the_last_commit_and_nothing_else(path: Path) -> None:
    run(
        OPEN
        + """
for number in range(500):
    simulation.record(session(number, mail(f"{number}@client.example"), client=f"198.51.{number}.1"))
simulation._store._commit()
for number in range(500, 600):
    simulation.record(session(number, mail(f"{number}@client.example"), client=f"198.51.{number}.1"))
""".replace("198.51.{number}.1", "10.{number // 100}.{number % 100}.1"),
        path,
        kill=True,
    )
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    with simulating(path) as simulation:
        assert simulation.pending == {("greylite",): 500, ("postgrey",): 500}
        again = session(900, mail("499@client.example"), client="10.4.99.1")
        lost = session(900, mail("500@client.example"), client="10.5.0.1")
        assert each_decision(simulation, again, lost) == [["passed_on_retry"] * 2, ["deferred"] * 2]


def test_a_state_killed_before_its_tables_were_made_is_taken_for_new(path: Path) -> None:
    path.touch()
    with simulating(path) as simulation:
        simulation.record(session(0, mail()))
    with simulating(path) as simulation:
        assert simulation.pending[GREYLITE,] == 1


def test_it_commits_by_the_clock_and_by_what_there_is_to_commit(path: Path) -> None:
    now = [0.0]
    store = Store(path, clock=lambda: now[0])

    statements: list[str] = []
    store.connection.set_trace_callback(statements.append)

    def is_committed() -> bool:
        statements.clear()
        store.commit_if_due()
        return "COMMIT" in statements

    now[0] = COMMIT_SECONDS - 0.1
    assert not is_committed()
    now[0] = COMMIT_SECONDS
    assert is_committed()
    for _ in range(COMMIT_CHANGES - 1):
        store.changed()
    assert not is_committed()
    store.changed()
    assert is_committed()
    store.close()


def test_a_tick_commits_where_no_record_comes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation(["greylite"], path)
    simulation.record(session(0, mail()))
    now = simulation._store._committed_at + COMMIT_SECONDS
    monkeypatch.setattr(simulation._store, "_clock", lambda: now)
    simulation.tick(at_ns(1))
    assert not simulation._store._changes
    simulation.close()


def test_closing_twice_does_no_harm(path: Path) -> None:
    simulation = Simulation(BOTH, path)
    simulation.close()
    simulation.close()
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.key"]


# ---------------------------------------------------------------------- privacy


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_its_owner_can_read_the_state(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        simulation = Simulation(BOTH, path)
        simulation.record(session(0, mail()))
        simulation._store._commit()
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {path.name: 0o600, f"{path.name}.key": 0o600, f"{path.name}-wal": 0o600}
    simulation.close()


def test_no_address_stands_in_the_files(path: Path) -> None:
    record = session(
        0,
        mail("secret-sender@hidden-domain.test", [("some-body@other-place.test", 250)]),
        client="203.0.113.77",
    )
    simulation = Simulation(BOTH, path)
    for later in range(3):
        simulation.record(session(later * 300, *record.transactions, client="203.0.113.77"))
    simulation._store._commit()
    for is_open in (True, False):
        written = b"".join(file.read_bytes() for file in path.parent.iterdir())
        assert len(written) > 4_096
        for word in (
            b"secret",
            b"hidden-domain",
            b"some-body",
            b"other-place",
            b"203.0.113",
            bytes((203, 0, 113)),
        ):
            assert word not in written
        if is_open:
            simulation.close()


def test_the_same_address_has_another_digest_under_another_key(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        with simulating(tmp_path / name) as simulation:
            simulation.record(session(0, mail()))
        connection = sqlite3.connect(tmp_path / name)
        found += connection.execute("SELECT triplet, owner FROM greylite_pending").fetchall()
        connection.close()
    assert len({digest for row in found for digest in row}) == 4
    assert {len(digest) for row in found for digest in row} == {16}


# ---------------------------------------------------------------------- files that can't be used


def refusal(path: Path) -> str:
    with pytest.raises(SimulationStateError) as caught:
        Simulation(BOTH, path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_programs_file_is_refused_and_left_as_it_is(path: Path) -> None:
    for content in (b"x", b"From: somebody\n" * 100, b"SQLite format 3\0"):
        path.write_bytes(content)
        assert refusal(path) == (
            f"{path} is no state of a simulation; name another file with --simulate-state"
        )
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_another_programs_database_is_refused_and_left_as_it_is(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mails (mail TEXT)")
    connection.execute(f"PRAGMA user_version = {STATE_VERSION}")
    connection.close()
    content = path.read_bytes()
    assert "is another program's database" in refusal(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_state_of_another_version_is_refused_and_left_as_it_is(path: Path) -> None:
    Simulation(BOTH, path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {STATE_VERSION + 1}")
    connection.execute("PRAGMA wal_checkpoint")
    connection.close()
    content = path.read_bytes()
    assert f"has version {STATE_VERSION + 1}" in refusal(path)
    assert path.read_bytes() == content


def test_a_state_without_its_key_is_refused(path: Path) -> None:
    Simulation(BOTH, path).close()
    key = Path(f"{path}.key")
    right = key.read_bytes()
    assert len(right) == KEY_BYTES
    key.unlink()
    assert f"{key} is missing" in refusal(path)
    assert not key.exists()
    key.write_bytes(right[:-1])
    assert f"has {KEY_BYTES - 1} bytes instead of {KEY_BYTES}" in refusal(path)
    key.write_bytes(bytes(KEY_BYTES))
    assert "is not the key of" in refusal(path)
    key.write_bytes(right)
    Simulation(BOTH, path).close()


def test_a_new_state_takes_the_key_that_is_there(path: Path) -> None:
    Simulation(BOTH, path).close()
    key = Path(f"{path}.key").read_bytes()
    path.unlink()
    Simulation(BOTH, path).close()
    assert Path(f"{path}.key").read_bytes() == key


def test_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "No such file or directory" in refusal(tmp_path / "nowhere" / "state")
    assert "Is a directory" in refusal(tmp_path)


def test_a_damaged_state_is_refused(path: Path) -> None:
    Simulation(BOTH, path).close()
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(b"\xff" * 40_000)
    # SQLite says more in newer versions: "Tree 11 page 11: ".
    assert re.match(rf"{re.escape(str(path))} is damaged \((Tree \d+ p|P)age 11: ", refusal(path))


def test_two_programs_cannot_use_one_state(path: Path) -> None:
    other = run(OPEN, path)
    assert refusal(path) == (
        f"{path} is in use by another program; end that, or name another file with --simulate-state"
    )
    end(other)
    Simulation(BOTH, path).close()


def test_a_greylister_that_is_not_known_is_an_error(path: Path) -> None:
    with pytest.raises(ValueError, match="spamd"):
        Simulation(["spamd"], path)
    assert not path.exists()


# ---------------------------------------------------------------------- a disk that takes no more

FULL = """
import logging, resource, sys
from pathlib import Path
from monitor.simulation.simulation import Simulation
from monitor.simulation.store import COMMIT_CHANGES
from tests.monitor.simulation.sessions import *

logging.basicConfig(stream=sys.stdout)
path = Path(sys.argv[1])
simulation = Simulation(("greylite",), path)
def some(begin):
    for number in range(begin, begin + COMMIT_CHANGES):
        simulation.record(session(number / 10, mail(f"{number}@client.example")))
some(0)
committed = simulation.pending["greylite",]
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, unlimited[1]))
some(10_000)
some(20_000)
print(committed, simulation.pending["greylite",], sum(simulation.decisions.values()))
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
some(30_000)
simulation.close()
print(simulation.pending["greylite",])
"""


def test_a_full_disk_costs_triplets_and_one_warning_and_no_count(path: Path) -> None:
    """The kernel refuses to let the files grow, as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    warning, while_full, after = done.stdout.splitlines()
    assert warning.startswith(f"WARNING:monitor.simulation.store:simulation: cannot write to {path}: ")
    committed, kept, counted = map(int, while_full.split())
    assert (committed, kept, counted) == (COMMIT_CHANGES, COMMIT_CHANGES, 3 * COMMIT_CHANGES)
    assert int(after) == 2 * COMMIT_CHANGES
    with simulating(path, limit_rows=10_000) as simulation:
        assert simulation.pending[GREYLITE,] == 2 * COMMIT_CHANGES


def test_what_could_not_be_looked_up_is_unknown(path: Path) -> None:
    with simulating(path, "greylite") as simulation:
        simulation.record(session(0, mail()))
        simulation._store._commit()
        simulation._store.connection.execute("DROP TABLE greylite_verified")
        assert each_decision(simulation, session(1, mail())) == [["unknown"]]
        # What was begun is taken back, and the table is there again.
        assert each_decision(simulation, session(1, mail())) == [["passed_on_retry"]]


# ---------------------------------------------------------------------- bounds


def test_a_full_table_forgets_the_oldest(path: Path) -> None:
    with simulating(path, limit_rows=10) as simulation:
        for number in range(15):
            simulation.record(session(number, mail(f"{chr(97 + number)}@x.test"), client=f"10.0.{number}.1"))
        assert simulation.pending == {("greylite",): 10, ("postgrey",): 10}
        assert ended(simulation) == {"forgotten": 5}
        for number, decision in ((4, "deferred"), (14, "passed_on_retry")):
            record = session(400, mail(f"{chr(97 + number)}@x.test"), client=f"10.0.{number}.1")
            assert each_decision(simulation, record) == [[decision] * 2]


def test_a_full_table_forgets_who_was_not_seen_for_longest(path: Path) -> None:
    with simulating(path, limit_rows=10) as simulation:
        for number in range(12):
            for at in (number, 400 + number):
                simulation.record(session(at, mail(f"{number}@x.test"), client=f"10.0.{number}.1"))
        assert simulation.known == {("greylite",): 10, ("postgrey",): 10}
        # Addresses of greylite; triplets and clients of postgrey.
        assert simulation.known_forgotten == {("greylite",): 2, ("postgrey",): 4}
        oldest, newest = (session(500, client=f"10.0.{number}.1") for number in (0, 11))
        assert each_decision(simulation, oldest, newest) == [["unknown"], ["passed_known"]]


def test_a_table_shrinks_to_a_smaller_limit(path: Path) -> None:
    with simulating(path, "greylite", limit_rows=3_000) as simulation:
        for number in range(2_500):
            simulation.record(session(0, mail(f"{number}@x.test")))
    with simulating(path, "greylite", limit_rows=10) as simulation:
        much_later(simulation, 0)
        assert simulation.pending[GREYLITE,] == 10
        assert ended(simulation) == {"forgotten": 2_490}


def test_expiry_goes_in_steps(path: Path) -> None:
    with simulating(path, "greylite", limit_rows=3_000) as simulation:
        for number in range(2_500):
            simulation.record(session(0, mail(f"{number}@x.test")))
        for left in (2_500 - STEP_ROWS, 2_500 - 2 * STEP_ROWS, 0):
            simulation.tick(at_ns(DAY + 2_500 - left))
            assert simulation.pending[GREYLITE,] == left


def test_what_waits_to_expire_is_stale_already(path: Path) -> None:
    with simulating(path, "greylite", limit_rows=3_000) as simulation:
        for number in range(2_500):
            simulation.record(session(0, mail(f"{number}@x.test")))
        assert each_decision(simulation, session(DAY, mail("2499@x.test"))) == [["deferred"]]
        much_later(simulation, DAY + 100)
        assert ended(simulation) == {"never_retried": 2_500}
        assert simulation.pending[GREYLITE,] == 1


def test_a_clock_that_jumps_takes_no_more_than_a_step(path: Path) -> None:
    with simulating(path, "greylite", limit_rows=3_000) as simulation:
        for number in range(2_500):
            simulation.record(session(number / 1_000, mail(f"{number}@x.test")))
        simulation.tick(at_ns(10_000 * DAY))
        simulation.tick(at_ns(2))
        assert each_decision(simulation, session(3, mail("2499@x.test"))) == [["passed_on_retry"]]


@pytest.mark.parametrize("start", ["1970-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"])
def test_any_date_of_a_capture_can_be_taken(path: Path, start: str) -> None:
    with simulating(path) as simulation:
        found = each_decision(simulation, session(0, mail(), start=start), session(1, mail(), start=start))
        assert found == [["deferred"] * 2, ["passed_on_retry", "deferred"]]


def test_one_client_with_many_triplets_changes_a_bounded_number_at_once(path: Path) -> None:
    many = OWNER_ROWS + 5
    with simulating(path, limit_rows=2 * many) as simulation:
        for number in range(many):
            simulation.record(session(number / 100, mail(f"{number:x}g@x.test")))
        simulation.record(hidden(200))
        simulation.record(session(300, mail("0g@x.test")))
        assert ended(simulation)["released"] == OWNER_ROWS
        assert simulation.pending[GREYLITE,] == 4
        for step in range(many // STEP_ROWS + 1):
            simulation.tick(at_ns(4 * DAY + step))
        fates = {fate.value: count for (name, fate), count in simulation.fates.items() if name == "postgrey"}
        assert fates["unknown"] + fates["never_retried"] + fates["retried"] == many
        assert fates["unknown"] >= OWNER_ROWS - 1


def test_time_that_no_record_tells_of_is_told_by_ticks(path: Path) -> None:
    with simulating(path, "greylite") as simulation:
        simulation.record(session(0, mail()))
        simulation.tick(at_ns(18 * HOUR))
        assert simulation.pending[GREYLITE,] == 1
        simulation.tick(at_ns(20 * HOUR))
        assert simulation.pending[GREYLITE,] == 0
