"""A state that is damaged, or that somebody has planted: one line, at once, and nothing is written."""

import logging
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import pytest

from monitor.simulation.simulation import Simulation
from monitor.simulation.state_check import STATE_BYTES_MAX
from monitor.simulation.state_file import KEY_BYTES, STATE_VERSION, SimulationStateError
from tests.monitor.simulation.sessions import DAY, at_ns, each_decision, mail, session

BOTH: Final = ("greylite", "postgrey")
PAGE: Final = 4096
FLIPS: Final = int(os.environ.get("STATE_FLIPS", "60"))
PROGRAM: Final = Path(sys.executable).with_name("smtp-horizon")
CAPTURE: Final = Path(__file__).parents[2] / "captures/bdat.pcap"


class Files(NamedTuple):
    """The contents of a state and its companions, by what is behind the name."""

    contents: dict[str, bytes]

    def at(self, path: Path) -> None:
        for suffix, content in self.contents.items():
            Path(f"{path}{suffix}").write_bytes(content)


def everything(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def use(simulation: Simulation) -> None:
    """As a day of mail does: looks up, adds, changes and removes."""
    for number in range(40):
        simulation.record(session(number, mail(f"{number}@client.example"), client=f"198.51.100.{number}"))
        simulation.record(session(400 + number, mail(f"{number}@client.example"), client="198.51.100.1"))
    simulation.tick(at_ns(1))
    simulation.tick(at_ns(60 * DAY))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A state with a few hundred rows in each table."""
    path = tmp_path_factory.mktemp("state") / "state"
    simulation = Simulation(BOTH, path)
    for number in range(200):
        client = f"198.51.{number}.1"
        simulation.record(session(number, mail(f"{number:x}g@client.example"), client=client))
        simulation.record(session(number, mail(f"{number:x}x@client.example"), client=client))
        simulation.record(session(400 + number, mail(f"{number:x}g@client.example"), client=client))
    simulation.close()
    return Files({suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ("", ".key")})


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """One whose program was killed: some of it is in SQLite's log."""
    path = tmp_path_factory.mktemp("state") / "state"
    simulation = Simulation(BOTH, path)
    for number in range(200):
        simulation.record(session(number, mail(f"{number:x}g@client.example"), client=f"198.51.{number}.1"))
    simulation._store._commit()
    files = Files({suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ("", ".key", "-wal")})
    simulation.close()
    return files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


def refusal(path: Path) -> str:
    """What is said; nothing is written meanwhile."""
    before = everything(path)
    with pytest.raises(SimulationStateError) as caught:
        Simulation(BOTH, path)
    assert everything(path) == before
    said = str(caught.value)
    assert "\n" not in said
    assert str(path) in said
    assert "move it away" in said or "bring the right key back" in said or "name another file" in said
    return said


ENDLESS: Final = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
LARGE: Final = "hex(zeroblob(400000000))"
PENDING: Final = "triplet BLOB PRIMARY KEY, owner BLOB NOT NULL, first_us INTEGER NOT NULL"
KEY: Final = "zeroblob(16)"

PLANTED: Final = {
    "a view without an end": (
        "DROP TABLE greylite_pending",
        f"CREATE VIEW greylite_pending AS {ENDLESS} SELECT x triplet, x owner, x first_us, 0 outcome FROM n",
    ),
    "a view of the key's proof": (
        "DROP TABLE key_proof",
        f"CREATE VIEW key_proof AS {ENDLESS} SELECT max(x) AS proof FROM n",
    ),
    "a trigger": ("CREATE TRIGGER t AFTER INSERT ON greylite_pending BEGIN DELETE FROM key_proof; END",),
    "a computed column": (
        "DROP TABLE greylite_pending",
        f"CREATE TABLE greylite_pending ({PENDING}, outcome AS (length({LARGE})) VIRTUAL) WITHOUT ROWID",
    ),
    "an index on an expression": (
        f"CREATE INDEX i ON greylite_pending (length(triplet || {LARGE})) WHERE first_us = 7",
    ),
    "a table more": ("CREATE TABLE addresses (address TEXT)",),
    "a table less": ("DROP TABLE postgrey_clients",),
    "another order of columns": (
        "DROP TABLE greylite_pending",
        f"CREATE TABLE greylite_pending (outcome INTEGER NOT NULL, {PENDING}) WITHOUT ROWID",
    ),
    "a schema without an end": tuple(f"CREATE TABLE t{number} (a)" for number in range(2_000)),
    "text for a digest": ("INSERT INTO greylite_pending VALUES ('198.51.100.1', zeroblob(16), 0, 0)",),
    "a digest that is too long": (f"INSERT INTO greylite_pending VALUES (zeroblob(17), {KEY}, 0, 0)",),
    "a value of ten megabytes": (f"INSERT INTO greylite_pending VALUES (zeroblob(10000000), {KEY}, 0, 0)",),
    "text for a time": (f"INSERT INTO greylite_pending VALUES ({KEY}, {KEY}, 'noon', 0)",),
    "a time that no calendar knows": (f"INSERT INTO postgrey_passed VALUES ({KEY}, 0, {2**62}, 1)",),
    "a fraction for a time": (f"INSERT INTO postgrey_passed VALUES ({KEY}, 0.5, 0, 1)",),
    "an outcome that there is not": (f"INSERT INTO postgrey_pending VALUES ({KEY}, {KEY}, 0, 77)",),
    "a count that no sum can take": (f"INSERT INTO postgrey_clients VALUES ({KEY}, 0, 0, {2**63 - 1})",),
    "no proof of the key": ("DELETE FROM key_proof",),
    "two proofs of the key": ("INSERT INTO key_proof VALUES (zeroblob(16))",),
    "text for the proof": ("UPDATE key_proof SET proof = 'proof'",),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_was_planted_is_refused_before_it_does_anything(what: str, path: Path, whole: Files) -> None:
    whole.at(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for statement in PLANTED[what]:
            connection.execute(statement)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    said = refusal(path)
    assert ("is not the key of" in said) == ("proof" in what and "view" not in what)


def test_what_was_planted_in_its_log_is_refused_and_stays_there(path: Path, whole: Files) -> None:
    whole.at(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON key_proof BEGIN DELETE FROM key_proof; END")
        log = Path(f"{path}-wal").read_bytes()
    whole.at(path)
    Path(f"{path}-wal").write_bytes(log)
    assert "its tables are not those that this program makes" in refusal(path)


def test_a_schema_that_is_not_utf_8_is_refused(path: Path, whole: Files) -> None:
    content = whole.contents[""].replace(
        b"CREATE TABLE postgrey", b"CREATE TABLE \xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc"
    )
    whole.at(path)
    path.write_bytes(content)
    assert "is damaged (" in refusal(path)


def _tree(pages: int, children: Callable[[int], tuple[int, ...]], whole: bytes) -> bytes:
    """A state whose first table's root leads to pages behind the end, and each of these to `children`."""
    count = len(whole) // PAGE
    (root,) = _root_of(whole)
    forged = bytearray(whole)
    forged[28:32] = struct.pack(">I", count + pages)

    def interior(number: int) -> bytes:
        *cells, last = (count + 1 + child for child in children(number))
        # Section 1.6 of the file format, of an index: a page on the left, and a record of one NULL.
        cell = [struct.pack(">I", child) + b"\x02\x02\x00" for child in cells]
        at = [PAGE - 7 * (position + 1) for position in range(len(cell))]
        head = struct.pack(">BHHHBI", 2, 0, len(cell), at[-1] if at else PAGE, 0, last)
        pointers = b"".join(struct.pack(">H", position) for position in at)
        return (head + pointers).ljust(PAGE - 7 * len(cell), b"\0") + b"".join(reversed(cell))

    forged[(root - 1) * PAGE : root * PAGE] = interior(-1)
    leaf = struct.pack(">BHHHB", 10, 0, 0, PAGE, 0).ljust(PAGE, b"\0")
    return bytes(forged) + b"".join(interior(number) for number in range(pages - 1)) + leaf


def _root_of(whole: bytes) -> tuple[int]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(whole[:18] + b"\x01\x01" + whole[20:])
        row: tuple[int] = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'greylite_pending'"
        ).fetchone()
        return row


def test_pages_that_lead_to_one_page_by_too_many_ways_are_refused_at_once(path: Path, whole: Files) -> None:
    """Whoever counted the rows would come by 400 to the power of 15 leaves."""
    whole.at(path)
    path.write_bytes(_tree(15, lambda number: (number + 1,) * 400, whole.contents[""]))
    assert "is damaged (" in refusal(path)


def test_a_state_of_smaller_pages_is_refused(path: Path, whole: Files) -> None:
    """A chain of so many as a file may hold would take more stack than there is."""
    whole.at(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 512", "VACUUM"):
            connection.execute(statement)
    assert f"is damaged (its pages have 512 bytes instead of {PAGE})" in refusal(path)


@pytest.mark.thorough
def test_a_chain_of_pages_as_long_as_a_file_may_be_does_not_end_the_program(path: Path, whole: Files) -> None:
    whole.at(path)
    path.write_bytes(_tree(60_000, lambda number: (number + 1,), whole.contents[""]))
    # In another program: this one would be gone.
    done = subprocess.run(
        [PROGRAM, "read", "--simulate", "greylite", "--simulate-state", path, CAPTURE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done
    assert done.stderr.startswith(f"Error: {path} is damaged (")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_file_that_is_larger_than_any_state_is_refused_unread(path: Path, whole: Files) -> None:
    whole.at(path)
    with path.open("r+b") as file:
        file.truncate(STATE_BYTES_MAX + PAGE)
    with pytest.raises(SimulationStateError, match="larger than a state can be"):
        Simulation(BOTH, path)
    whole.at(path)
    with Path(f"{path}-wal").open("wb") as file:
        file.truncate(STATE_BYTES_MAX + PAGE)
    with pytest.raises(SimulationStateError, match=r"-wal is larger than a state can be"):
        Simulation(BOTH, path)


@pytest.mark.parametrize("numerator", range(1, 16))
def test_a_state_that_was_cut_is_refused(numerator: int, path: Path, whole: Files) -> None:
    whole.at(path)
    content = whole.contents[""]
    path.write_bytes(content[: len(content) * numerator // 16])
    refusal(path)


def test_the_log_of_a_killed_program_is_read(path: Path, killed: Files) -> None:
    assert killed.contents["-wal"]
    killed.at(path)
    with closing(Simulation(BOTH, path)) as simulation:
        assert list(simulation.pending.values()) == [200, 200]


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_flipped_bits_are_refused_or_do_no_harm(
    suffix: str, path: Path, whole: Files, killed: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """Never another exception, at the start or later. STATE_FLIPS=3000 tries more."""
    caplog.set_level(logging.CRITICAL)
    files = killed if suffix else whole
    rng = Random(len(suffix))
    opened = 0
    for _ in range(FLIPS):
        files.at(path)
        content = bytearray(files.contents[suffix])
        for _ in range(rng.choice((1, 1, 8, 64))):
            # Most of what leads on stands at the beginning of pages.
            page = rng.randrange(len(content) // PAGE) * PAGE
            at = page + rng.choice((rng.randrange(120), rng.randrange(PAGE)))
            content[at % len(content)] ^= 1 << rng.randrange(8)
        Path(f"{path}{suffix}").write_bytes(content)
        before = everything(path)
        try:
            simulation = Simulation(BOTH, path, limit_rows=150)
        except SimulationStateError:
            assert everything(path) == before
        else:
            opened += 1
            use(simulation)
            simulation.close()
        for file in path.parent.iterdir():
            file.unlink()
    # SQLite leaves a log at the first page whose checksum is wrong.
    assert 0 < opened <= FLIPS if suffix else 0 < opened < FLIPS


def test_a_disk_that_damages_it_under_way_costs_answers_and_nothing_else(path: Path, whole: Files) -> None:
    whole.at(path)
    simulation = Simulation(BOTH, path)
    simulation._store.connection.execute("PRAGMA cache_size = 0")
    (first, *_) = each_decision(simulation, session(0, mail("1g@client.example"), client="198.51.1.1"))
    assert "unknown" not in first
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(bytes(len(whole.contents[""]) - PAGE))
    use(simulation)
    decisions = {decision.value for (_, decision), count in simulation.decisions.items() if count}
    assert "unknown" in decisions
    simulation.close()


def test_a_newer_version_is_refused(path: Path, whole: Files) -> None:
    whole.at(path)
    content = bytearray(whole.contents[""])
    content[60:64] = struct.pack(">I", STATE_VERSION + 1)
    path.write_bytes(content)
    assert f"has version {STATE_VERSION + 1}" in refusal(path)


def test_a_key_without_an_end_is_not_read_to_its_end(path: Path, whole: Files) -> None:
    whole.at(path)
    with Path(f"{path}.key").open("r+b") as file:
        file.truncate(1024**4)
    with pytest.raises(SimulationStateError, match=f"has more bytes than {KEY_BYTES}"):
        Simulation(BOTH, path)


def test_a_key_that_could_not_be_written_is_not_left_half(path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from monitor.simulation.state_file import open_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))\n"
        "open_file(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CAPTURE.parents[2])
    assert f"SimulationStateError: cannot use {path}.key for the simulation: " in done.stderr
    assert not Path(f"{path}.key").exists()
    Simulation(BOTH, path).close()
