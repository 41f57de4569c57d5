"""Records as JSON lines: what may be in a line, and what happens to it when the disk has other plans."""

import fcntl
import json
import logging
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import tty
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from monitor.records import ReaderGoneError, RecordsWriter, encode
from monitor.sessions.record import Banner, Endpoint, Helo, SessionRecord

MakeRecord = Callable[..., SessionRecord]


def test_a_record_is_one_line_of_json_with_the_fields_of_the_contract(make_record: MakeRecord) -> None:
    line = encode(make_record())
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    record = json.loads(line)
    assert list(record)[:6] == ["schema_version", "community_id", "start", "end", "client", "server"]
    assert record["client"] == {"ip": "192.0.2.1", "port": 40000}
    assert record["starttls"] == {"offered": True, "requested": 0, "codes": [], "outcome": "unused"}
    assert record["transactions"][0]["recipients"][2] == {
        "address": "d@example.test",
        "code": None,
        "params": {},
        "after_seconds": None,
    }
    assert record["tls"] is None


def test_no_character_that_a_terminal_obeys_is_left_raw(make_record: MakeRecord) -> None:
    hostile = "".join(map(chr, [*range(0xA0), 0x61C, *range(0x200E, 0x2010), *range(0x2028, 0x202F)]))
    hostile += "".join(map(chr, range(0x2066, 0x206A))) + '"\\ ' + "\u00e9\u20ac\U0001f4e7"
    line = encode(make_record(banner=Banner(220, hostile), proxied_client=Endpoint("192.0.2.9", 1)))
    text = line.decode().removesuffix("\n")
    assert not [char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"}]
    assert json.loads(line)["banner"]["text"] == hostile
    assert "\u00e9\u20ac\U0001f4e7" in text, "letters stay letters"


def test_a_new_file_is_readable_by_its_owner_only(make_record: MakeRecord, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    writer = RecordsWriter(str(path))
    assert writer.write(make_record())
    writer.close()
    writer.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes().splitlines()) == 1


def test_an_existing_file_is_appended_to_and_keeps_its_mode(
    make_record: MakeRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"old":1}\n')
    path.chmod(0o640)
    writer = RecordsWriter(str(path))
    writer.write(make_record())
    writer.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_bytes().startswith(b'{"old":1}\n{"schema_version":1')
    assert not caplog.records


def test_a_file_that_everybody_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records.jsonl"
    path.touch()
    path.chmod(0o644)
    RecordsWriter(str(path)).close()
    assert "chmod o-r" in caplog.text


def test_after_logrotate_the_next_record_goes_to_the_new_file(
    make_record: MakeRecord, tmp_path: Path
) -> None:
    path, rotated = tmp_path / "records.jsonl", tmp_path / "records.jsonl.1"
    writer = RecordsWriter(str(path))
    writer.write(make_record())
    path.rename(rotated)
    writer.write(make_record())
    writer.reopen()
    writer.write(make_record())
    writer.close()
    assert len(rotated.read_bytes().splitlines()) == 2
    assert len(path.read_bytes().splitlines()) == 1


def test_a_failed_reopen_goes_on_in_the_old_file(
    make_record: MakeRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    writer = RecordsWriter(str(folder / "records.jsonl"))
    folder.rename(tmp_path / "moved")
    writer.reopen()
    assert writer.write(make_record())
    writer.close()
    assert "going on in the old file" in caplog.text
    assert len((tmp_path / "moved/records.jsonl").read_bytes().splitlines()) == 1


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 kB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_loses_whole_records_and_goes_on_when_space_returns(
    make_record: MakeRecord, tiny_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, ballast = tiny_disk / "records.jsonl", tiny_disk / "ballast"
    ballast.write_bytes(b"x" * 8192)
    writer = RecordsWriter(str(path))
    results = [writer.write(make_record()) for _ in range(30)]
    written = results.count(True)
    assert 0 < written < 30
    assert results == [True] * written + [False] * (30 - written)
    assert [json.loads(line) for line in path.read_bytes().splitlines()]
    assert path.read_bytes().endswith(b"}\n"), "no half line is left"
    assert len(path.read_bytes().splitlines()) == written
    assert caplog.text.count("No space left") == 1, "one warning, not one for each record"

    ballast.unlink()
    assert writer.write(make_record())
    writer.close()
    lines = path.read_bytes().splitlines()
    assert len(lines) == written + 1
    assert all(json.loads(line)["schema_version"] == 1 for line in lines)
    assert f"lost in between: {30 - written}" in caplog.text


def test_a_file_size_limit_in_the_middle_of_a_line_leaves_no_half_line(
    make_record: MakeRecord, tmp_path: Path
) -> None:
    """RLIMIT_FSIZE gives a short write at an exact byte, root or not."""
    path = tmp_path / "records.jsonl"
    line = encode(make_record())
    writer = RecordsWriter(str(path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(line) + len(line) // 2, limits[1]))
    try:
        results = [writer.write(make_record()) for _ in range(2)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert results == [True, False]
    assert path.read_bytes() == line
    assert writer.write(make_record())
    writer.close()
    assert path.read_bytes() == line * 2


def test_records_written_together_are_lost_together(
    make_record: MakeRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records.jsonl"
    line = encode(make_record())
    writer = RecordsWriter(str(path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(line) * 3 + 1, limits[1]))
    try:
        results = [writer.write(make_record(), make_record()) for _ in range(2)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert results == [True, False]
    assert path.read_bytes() == line * 2
    assert writer.write(make_record())
    writer.close()
    assert path.read_bytes() == line * 3
    assert "lost in between: 2" in caplog.text


def test_a_record_has_nothing_of_the_one_before_it(make_record: MakeRecord) -> None:
    first = encode(make_record(banner=Banner(220, "x" * 5_000)))
    again = encode(make_record())
    assert b"x" * 5_000 in first
    assert again.count(b"\n") == 1
    assert json.loads(again)["banner"]["text"] == "mx.example ESMTP"


def test_dev_full_is_a_warning(make_record: MakeRecord, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        writer = RecordsWriter("/dev/full")
        assert not writer.write(make_record())
        assert not writer.write(make_record())
        writer.close()
    assert caplog.text.count("free some space") == 1


def _read(descriptor: int) -> bytes:
    """All that is there."""
    received = b""
    while select.select([descriptor], [], [], 0)[0] and (piece := os.read(descriptor, 65_536)):
        received += piece
    return received


@pytest.fixture
def small_pipe(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A named pipe of 4 kB, and a descriptor to read it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    yield str(fifo), reader
    os.close(reader)


def test_a_full_pipe_is_not_waited_for_and_gets_each_line_whole_and_in_order(
    make_record: MakeRecord, small_pipe: tuple[str, int]
) -> None:
    path, reader = small_pipe
    writer = RecordsWriter(path, may_wait=False)
    records = [make_record(helo=(Helo("EHLO", f"{number}" * 5000, 250),)) for number in range(9)]
    assert all(writer.write(record) for record in records)
    received = _read(reader)
    assert len(received) == 4096
    for _ in range(100):
        writer.follow()
        received += _read(reader)
    assert writer.close()
    assert received == b"".join(map(encode, records))


def test_what_waits_for_a_pipe_has_a_bound_and_what_goes_over_it_is_told_of_once(
    make_record: MakeRecord,
    small_pipe: tuple[str, int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, reader = small_pipe
    record = make_record()
    line = encode(record)
    monkeypatch.setattr("monitor.records.WAITING_BYTES", 10 * len(line))
    writer = RecordsWriter(path, may_wait=False)
    results = [writer.write(record) for _ in range(50)]
    taken = results.count(True)
    assert 10 <= taken <= 10 + 4096 // len(line) + 1
    assert results == [True] * taken + [False] * (50 - taken)
    assert caplog.text.count("its reader is too slow") == 1
    received = b""
    for _ in range(50):  # one who reads a little is told of once too
        received += os.read(reader, 2 * len(line))
        writer.follow()
        results.append(writer.write(record))
    assert caplog.text.count("\n") <= 3
    for _ in range(100):
        received += _read(reader)
        writer.follow()
    assert writer.close()
    assert received == line * results.count(True)


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_no_reader_is_waited_for_whatever_he_reads_from(
    kind: str, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.records.WAITING_BYTES", 1 << 20)
    monkeypatch.setattr("monitor.records.LAST_WAIT_SECONDS", 0.0)
    if kind == "pipe":
        reader, writing = os.pipe()
    elif kind == "socket":
        reader, writing = (end.detach() for end in socket.socketpair())
    else:
        reader, writing = os.openpty()
        tty.setraw(writing)
    record = make_record()
    writer = RecordsWriter("", lambda _: writing, may_wait=False)
    previous = signal.signal(signal.SIGALRM, _fail)
    signal.alarm(10)
    try:
        written = 0
        while writer.write(record):
            written += 1
        assert written > (1 << 20) // len(encode(record))
        received = _read(reader)
        for _ in range(10_000):
            writer.follow()
            received += _read(reader)
        assert writer.close()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        os.close(reader)
    assert received == encode(record) * written


@pytest.mark.parametrize("kind", ["socket", "terminal"])
def test_whoever_read_and_has_gone_is_said_to_have_gone(kind: str, make_record: MakeRecord) -> None:
    if kind == "socket":
        reader, writing = (end.detach() for end in socket.socketpair())
    else:
        reader, writing = os.openpty()
    writer = RecordsWriter("", lambda _: writing, may_wait=False)
    assert writer.write(make_record())
    os.close(reader)
    with pytest.raises(ReaderGoneError):
        writer.write(make_record())
    writer.close()


def _fail(_number: int, _frame: object) -> None:
    raise AssertionError("it waits")


def test_the_end_waits_a_moment_for_a_reader_and_says_what_it_did_not_take(
    make_record: MakeRecord,
    small_pipe: tuple[str, int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("monitor.records.LAST_WAIT_SECONDS", 0.1)
    path, reader = small_pipe
    record = make_record()
    writer = RecordsWriter(path, may_wait=False)
    for _ in range(50):
        writer.write(record)
    assert not writer.close()
    came = _read(reader).count(b"\n")
    assert f"nobody has read them from {path}: {50 - came}" in caplog.text


def test_a_named_pipe_may_be_without_a_reader_for_a_while(make_record: MakeRecord, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = RecordsWriter(str(fifo), may_wait=False)
    assert writer.write(make_record())
    reader = os.open(fifo, os.O_RDONLY)
    assert _read(reader) == encode(make_record())
    os.close(reader)
    assert writer.write(make_record())
    reader = os.open(fifo, os.O_RDONLY)
    assert _read(reader) == encode(make_record())
    os.close(reader)
    assert writer.close()


def test_the_reader_of_a_pipe_is_waited_for_where_that_may_be(make_record: MakeRecord) -> None:
    """As `read` does: nothing is lost, even where another program has made the pipe non-blocking."""
    program = (
        "import os, sys; sys.path.insert(0, '.'); from monitor.records import RecordsWriter;"
        "w = RecordsWriter('-'); w._write_whole(b'x' * 300_000); w.close()"
    )
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as reader:
        assert reader.read() == b"x" * 300_000
    assert writer.wait() == 0


@pytest.mark.parametrize("may_wait", [True, False])
def test_standard_output_without_a_reader_says_so(may_wait: bool) -> None:
    program = f"""if True:
        from monitor.records import RecordsWriter, ReaderGoneError
        from tests.monitor.conftest import CLEARTEXT
        writer = RecordsWriter("-", may_wait={may_wait})
        input()
        try:
            writer.write(CLEARTEXT)
        except ReaderGoneError:
            raise SystemExit(7)
    """
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.communicate(b"go\n")
    assert process.returncode == 7


def test_a_half_line_that_somebody_left_is_ended_before_the_first_record(
    make_record: MakeRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records.jsonl"
    line = encode(make_record())
    path.write_bytes(line + line[:100])
    writer = RecordsWriter(str(path))
    assert writer.write(make_record())
    assert writer.write(make_record())
    writer.close()
    assert path.read_bytes() == line + line[:100] + b"\n" + line * 2
    assert caplog.text.count("cut short") == 1


def test_a_half_line_is_ended_also_where_the_disk_is_full_at_first(
    make_record: MakeRecord, tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    line = encode(make_record())
    path.write_bytes(line[:100])
    writer = RecordsWriter(str(path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, limits[1]))
    try:
        assert not writer.write(make_record())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert writer.write(make_record())
    writer.close()
    assert path.read_bytes() == line[:100] + b"\n" + line


def test_of_two_writers_on_a_full_disk_none_cuts_off_what_the_other_wrote(
    make_record: MakeRecord, tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    line = encode(make_record())
    one, other = RecordsWriter(str(path)), RecordsWriter(str(path))
    os.write(one._descriptor, line[:100])  # what a short write leaves
    assert other.write(make_record())
    assert not one._take_back(100)
    assert path.read_bytes() == line[:100] + line


def test_a_deleted_file_is_made_anew_and_no_record_is_lost(
    make_record: MakeRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records.jsonl"
    writer = RecordsWriter(str(path))
    writer.write(make_record())
    path.unlink()
    assert writer.write(make_record())
    assert len(path.read_bytes().splitlines()) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    tmp_path.joinpath("folder").mkdir()
    tmp_path.rename(tmp_path.with_name("moved"))
    assert not any(writer.write(make_record()) for _ in range(3)), "there is no place to write to"
    tmp_path.with_name("moved").rename(tmp_path)
    assert writer.write(make_record())
    writer.close()
    assert len(path.read_bytes().splitlines()) == 1
    assert caplog.text.count("cannot write") == 1
    assert "lost in between: 3" in caplog.text


def test_a_file_that_had_no_name_from_the_beginning_is_written_to_without_a_word(
    make_record: MakeRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records.jsonl"
    with path.open("w+b") as file:
        path.unlink()
        writer = RecordsWriter(f"/proc/self/fd/{file.fileno()}")
        for _ in range(3):
            assert writer.write(make_record())
            writer.follow()
        writer.close()
        assert len(file.read().splitlines()) == 3
    assert not caplog.records


def test_a_file_that_was_moved_is_left_for_a_new_one_at_the_second_look(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.records.LOOK_SECONDS", 0.0)
    path, rotated = tmp_path / "records.jsonl", tmp_path / "records.jsonl.1"
    writer = RecordsWriter(str(path))
    writer.follow()
    path.rename(rotated)
    writer.follow()
    assert not path.exists(), "logrotate may be about to make it, with another mode"
    writer.write(make_record())
    writer.follow()
    writer.write(make_record())
    path.rename(tmp_path / "records.jsonl.0")
    path.touch(mode=0o640)
    for _ in range(3):
        writer.follow()
    writer.write(make_record())
    writer.close()
    assert len(rotated.read_bytes().splitlines()) == 1
    assert len(path.read_bytes().splitlines()) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_moved_file_that_cannot_be_made_anew_is_gone_on_with(
    make_record: MakeRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("monitor.records.LOOK_SECONDS", 0.0)
    folder, moved = tmp_path / "folder", tmp_path / "moved"
    folder.mkdir()
    writer = RecordsWriter(str(folder / "records.jsonl"))
    folder.rename(moved)
    for _ in range(5):
        writer.follow()
        assert writer.write(make_record())
    assert caplog.text.count("going on in the old file") == 1
    moved.rename(folder)
    for _ in range(5):
        writer.follow()
    writer.close()
    assert len((folder / "records.jsonl").read_bytes().splitlines()) == 5


def test_a_disk_that_comes_and_goes_does_not_fill_the_log(
    make_record: MakeRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "records.jsonl"
    writer = RecordsWriter(str(path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for _ in range(20):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            assert not writer.write(make_record())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert writer.write(make_record())
    assert caplog.text.count("\n") == 2, "it began, and was over"
    monkeypatch.setattr("monitor.records.SILENCE_SECONDS", 0.0)
    assert writer.write(make_record())
    assert "lost in between: 19" in caplog.text
    writer.close()


def test_a_dash_is_standard_output() -> None:
    program = (
        "from monitor.records import RecordsWriter; w = RecordsWriter('-'); w.reopen(); w.close(); print(1)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"1\n", "standard output is not ours to close"
