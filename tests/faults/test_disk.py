"""Records and the places that they go to, under the real program: watch goes on, and counts what it could not
write. What a single write does is in tests/monitor/test_records.py."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import pytest

from tests.lab.unpacked import tool
from tests.monitor.cli.conftest import Watch

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting and capturing need root"),
]

StartWatch = Callable[..., Watch]
Eventually = Callable[..., None]
_FAILED: Final = 'smtp_monitor_records_total{result="failed"}'
_WRITTEN: Final = 'smtp_monitor_records_total{result="written"}'


def _sessions(server: Any, count: int) -> None:
    for _ in range(count):
        server.whole_session()


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_full_disk_is_told_of_once_and_recovers_by_itself(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path, eventually: Eventually
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], check=True)
    try:
        path, ballast = disk / "records.jsonl", disk / "ballast"
        ballast.write_bytes(b"x" * 8192)
        watch = start_watch("--records", str(path))
        _sessions(smtp_server, 20)
        eventually(lambda: watch.total("smtp_sessions_total") == 20)
        lost = watch.samples()[_FAILED]
        assert lost > 0
        ballast.unlink()
        _sessions(smtp_server, 1)
        eventually(lambda: watch.total("smtp_sessions_total") == 21)
        assert watch.samples()[_FAILED] == lost
        assert watch.samples()[_WRITTEN] == len(_records(path)) == 21 - lost
        assert watch.log.count("No space left") == 1
        assert f"lost in between: {lost:.0f}" in watch.log
        watch.signal(signal.SIGTERM)
        assert watch.wait() == 1
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


class _Disk:
    """An ext4 file system in a file; a context manager, with it mounted."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / "disk"
        self._image = folder / "image"

    def __enter__(self) -> Self:
        self.place.mkdir()
        with self._image.open("wb") as file:
            file.truncate(8 << 20)
        subprocess.run([*tool("mkfs.ext4"), "-q", self._image], check=True)
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        self.take_away()

    def mount(self) -> None:
        command: list[str | Path] = ["mount", "-o", "loop,errors=remount-ro", self._image, self.place]
        mounted = subprocess.run(command, check=False, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"no loop device here: {mounted.stderr.strip()}")

    def take_away(self) -> None:
        subprocess.run(["umount", "--lazy", self.place], check=True)

    def turn_read_only(self) -> None:
        """As the kernel does it after an error."""
        command: list[str | Path] = ["findmnt", "-n", "-o", "SOURCE", self.place]
        device = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        Path(f"/sys/fs/ext4/{device.name}/trigger_fs_error").write_text("a test")


def test_a_disk_that_turns_read_only_is_told_of_once_and_its_successor_is_taken(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path, eventually: Eventually
) -> None:
    with _Disk(tmp_path) as disk:
        path = disk.place / "records.jsonl"
        watch = start_watch("--records", str(path))
        _sessions(smtp_server, 3)
        eventually(lambda: watch.total("smtp_sessions_total") == 3)
        with path.open("rb") as file:
            os.fsync(file)  # what was not on the disk yet is lost with it
        disk.turn_read_only()
        _sessions(smtp_server, 5)
        eventually(lambda: watch.total("smtp_sessions_total") == 8)
        assert watch.samples()[_FAILED] == 5
        assert watch.log.count("Read-only file system") == 1
        # After such an error, a repair would come here. Meanwhile there is only the folder beneath.
        disk.take_away()
        # Said once the old file is closed: as long as it is open, so is the disk that was taken away.
        eventually(lambda: watch.log.count("going on in a new file") == 1, 20)
        disk.mount()
        eventually(lambda: watch.log.count("going on in a new file") == 2, 20)
        _sessions(smtp_server, 2)
        eventually(lambda: watch.total("smtp_sessions_total") == 10)
        assert watch.samples()[_FAILED] == 5
        assert len(_records(path)) == watch.samples()[_WRITTEN] == 5
        assert "lost in between: 5" in watch.log
        watch.process.kill()
        watch.process.wait()


def test_a_disk_that_hangs_stops_it_and_what_came_meanwhile_is_read_afterwards(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path, eventually: Eventually
) -> None:
    with _Disk(tmp_path) as disk:
        path = disk.place / "records.jsonl"
        watch = start_watch("--records", str(path))
        subprocess.run(["fsfreeze", "--freeze", disk.place], check=True)
        try:
            _sessions(smtp_server, 1)
            time.sleep(2.5)  # longer than a closed session waits for stragglers
            _sessions(smtp_server, 20)
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", disk.place], check=True)
        eventually(lambda: watch.total("smtp_sessions_total") == 21)
        assert not watch.total("smtp_monitor_packets_dropped_total")
        assert [record["ended"] for record in _records(path)] == ["quit"] * 21
        watch.process.kill()
        watch.process.wait()


def test_a_deleted_file_comes_back_with_the_next_record(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path, eventually: Eventually
) -> None:
    path = tmp_path / "records.jsonl"
    watch = start_watch("--records", str(path))
    _sessions(smtp_server, 2)
    eventually(lambda: len(_records(path)) == 2)
    path.unlink()
    _sessions(smtp_server, 3)
    eventually(lambda: watch.total("smtp_sessions_total") == 5)
    assert len(_records(path)) == 3
    moved = path.rename(tmp_path / "moved")
    eventually(path.exists)
    _sessions(smtp_server, 1)
    eventually(lambda: watch.total("smtp_sessions_total") == 6)
    assert len(_records(path)) == 1
    assert len(_records(moved)) == 3
    assert watch.samples()[_WRITTEN] == 6


def test_a_reader_who_stops_stops_nothing_and_finds_each_record_when_he_goes_on(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path, eventually: Eventually
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with open(os.open(fifo, os.O_RDWR), "rb") as reader:
        watch = start_watch("--records", str(fifo))
        _sessions(smtp_server, 150)  # more than a pipe holds
        eventually(lambda: watch.total("smtp_sessions_total") == 150, 20)
        assert watch.samples()[_WRITTEN] == 150
        assert not watch.samples()["smtp_monitor_lag_seconds"]
        lines = [reader.readline() for _ in range(150)]
        assert {json.loads(line)["ended"] for line in lines} == {"quit"}
        watch.signal(signal.SIGTERM)
        assert watch.wait() == 0
