"""Records as JSON lines: what may be in a line, and what happens to it when the disk has other plans."""

import fcntl
import json
import logging
import os
import resource
import stat
import subprocess
import sys
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


def test_a_full_pipe_gets_the_rest_of_a_line_before_the_next(make_record: MakeRecord, tmp_path: Path) -> None:
    """A pipe can't be cut: the reader of a stopped pipe must not find two lines in one."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = RecordsWriter(str(fifo))
    os.set_blocking(writer._descriptor, False)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    record = make_record(helo=(Helo("EHLO", "x" * 5000, 250),))
    results, received = [], b""
    for _ in range(3):
        results += [writer.write(record), writer.write(record)]
        received += os.read(reader, 4096)
    writer.close()
    received += os.read(reader, 4096)
    os.close(reader)
    assert True in results
    assert False in results
    assert received == encode(record) * results.count(True)


def test_a_pipe_without_a_reader_says_so(make_record: MakeRecord, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = RecordsWriter(str(fifo))
    os.close(reader)
    with pytest.raises(ReaderGoneError):
        writer.write(make_record())
    writer.close()


def test_a_dash_is_standard_output() -> None:
    program = (
        "from monitor.records import RecordsWriter; w = RecordsWriter('-'); w.reopen(); w.close(); print(1)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"1\n", "standard output is not ours to close"
