"""tshark is replaced while it reads: planned, killed, hanging, dying over a frame. Nothing else is lost."""

import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import psutil
import pytest

from probes.pcap.files import CaptureFilesProbe
from probes.probe import CaptureInterrupted, DropSite, Probe, Restart
from probes.segment import Segment
from probes.tshark import dissector
from probes.tshark.probe import TsharkFilesProbe
from tests.probes.tshark.stand_ins import look_first_in
from tests.segments import PORTS, capture_path

TSHARK = which("tshark") or ""
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not TSHARK, reason="tshark is not installed"),
]

MID = str(capture_path("mid"))
STARTTLS = str(capture_path("starttls_tls13"))

# "STARTTLS" in hexadecimal, as a frame's payload holds it.
FATAL_BYTES = b"STARTTLS"
FATAL_SCRIPT = f"""
local payload = Field.new("tcp.payload")
local fatal = Proto("fatal", "Ends tshark, as a bug would")
function fatal.dissector()
  local found = payload()
  if found and found.range:bytes():tohex():find("{FATAL_BYTES.hex().upper()}") then os.exit(139) end
end
register_postdissector(fatal)
"""


def _all_of(probe: Probe) -> list[Segment]:
    try:
        return [segment for batch in probe.batches() for segment in batch]
    finally:
        probe.close()


@pytest.fixture(scope="module")
def mid() -> list[Segment]:
    return _all_of(CaptureFilesProbe([MID], PORTS))


def _tsharks() -> Iterator[psutil.Process]:
    for process in psutil.Process().children():
        try:
            if process.name() == "tshark":
                yield process
        except psutil.NoSuchProcess:
            continue


def _script(folder: Path, text: str) -> Path:
    """A program named tshark, found before the real one; says the real one's version."""
    script = folder / "tshark"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {TSHARK} --version\n{text}\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def test_a_tshark_that_has_seen_enough_is_replaced(mid: list[Segment]) -> None:
    probe = TsharkFilesProbe([MID], PORTS, frames_per_tshark=5_003)
    assert _all_of(probe) == mid
    assert probe.counts.restarts == {Restart.PLANNED: 5}  # of 26,669 frames
    assert not probe.counts.dropped


def test_what_a_killed_tshark_owed_is_answered_by_the_next(mid: list[Segment]) -> None:
    probe = TsharkFilesProbe([MID], PORTS)
    segments: list[Segment] = []
    killed = 0
    try:
        for batch in probe.batches():
            segments += batch
            if len(segments) > len(mid) * (killed + 1) // 5:
                for process in _tsharks():
                    process.kill()
                    killed += 1
    finally:
        probe.close()
    assert killed > 2
    assert segments == mid
    assert probe.counts.restarts == {Restart.DIED: killed}
    assert not probe.counts.dropped


def test_a_tshark_that_hangs_is_replaced(mid: list[Segment], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dissector, "SILENCE_CHECK_SECONDS", 2.0)  # a busy machine's tshark hangs less
    probe = TsharkFilesProbe([MID], PORTS)
    segments: list[Segment] = []
    is_stopped = False
    try:
        for batch in probe.batches():
            segments += batch
            if segments and not is_stopped:
                is_stopped = True
                for process in _tsharks():
                    process.send_signal(signal.SIGSTOP)
    finally:
        probe.close()
    assert segments == mid
    assert probe.counts.restarts[Restart.HUNG] >= 1
    assert not probe.counts.dropped


@pytest.mark.parametrize("frames_per_tshark", [7, dissector.FRAMES_PER_TSHARK])
def test_a_frame_over_which_tshark_dies_twice_is_left_out_and_counted(
    frames_per_tshark: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "fatal.lua"
    script.write_text(FATAL_SCRIPT)
    _script(tmp_path, f'exec {TSHARK} -X lua_script:{script} "$@"')
    look_first_in(tmp_path, monkeypatch)
    whole = _all_of(CaptureFilesProbe([STARTTLS], PORTS))
    harmless = [segment for segment in whole if FATAL_BYTES not in segment.payload]
    probe = TsharkFilesProbe([STARTTLS], PORTS, frames_per_tshark=frames_per_tshark)
    assert _all_of(probe) == harmless
    fatal = len(whole) - len(harmless)
    assert fatal > 10
    assert probe.counts.dropped == {DropSite.TSHARK: fatal}
    assert probe.counts.restarts[Restart.DIED] == fatal * dissector.DEATHS_OVER_ONE_FRAME


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo tshark: out of luck >&2; exit 3", r"status 3: tshark: out of luck"),
        ("kill -SEGV $$", r"status -11: it said nothing"),
        ('rm "$0"; exit 3', r".*No such file or directory.*"),
        ("echo nonsense; cat > /dev/null", r"1 fields instead of [0-9]+"),
        ("while read -r _; do echo 1; done", r"1 fields instead of [0-9]+"),
    ],
)
def test_a_tshark_that_never_answers_ends_the_reading_with_its_last_words(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _script(tmp_path, text)
    look_first_in(tmp_path, monkeypatch)
    with pytest.raises(CaptureInterrupted, match=rf"tshark does not work \({said}\); try: tshark -v"):
        _all_of(TsharkFilesProbe([STARTTLS], PORTS))


def test_a_reader_that_takes_its_time_is_waited_for_and_costs_no_memory(
    mid: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dissector, "MAX_UNANSWERED_BYTES", 100_000)
    probe = TsharkFilesProbe([MID], PORTS)
    segments: list[Segment] = []
    most_bytes = 0
    try:
        for batch in probe.batches():
            segments += batch
            most_bytes = max(most_bytes, probe._dissector._unanswered_bytes)
    finally:
        probe.close()
    assert segments == mid
    # What one reading of editcap's output adds comes on top.
    assert most_bytes < 100_000 + 2 * 256 * 1024


def test_nothing_stays_behind_when_reading_is_broken_off() -> None:
    probe = TsharkFilesProbe([MID], PORTS)
    for batch in probe.batches():
        if batch:
            break
    assert list(_tsharks())
    probe.close()
    assert not psutil.Process().children()
    assert threading.active_count() == 1 or "capture-input" not in {one.name for one in threading.enumerate()}
    probe.close()  # may be called twice
