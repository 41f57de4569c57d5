import time

import pytest

from probes.ebpf import clock
from probes.ebpf.clock import BootClock


def now_by(boot_clock: BootClock) -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + boot_clock.utc_minus_boot_ns


def test_boot_time_becomes_utc() -> None:
    before = time.time_ns()
    converted = now_by(BootClock())
    assert before - 1_000_000 < converted < time.time_ns() + 1_000_000


def test_a_measurement_no_better_than_its_error_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = [(1_000_000, 300), (1_000_050, 200), (1_000_700, 900)]
    monkeypatch.setattr(clock, "_measure", lambda: measured[0])
    boot_clock = BootClock()
    for distance in measured:
        monkeypatch.setattr(clock, "_measure", lambda distance=distance: distance)
        boot_clock.follow()
        assert boot_clock.utc_minus_boot_ns == 1_000_000


def test_a_clock_that_somebody_set_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    boot_clock = BootClock()
    before = boot_clock.utc_minus_boot_ns
    hour_ns = 3600 * 1_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda utc=time.time_ns: utc() - hour_ns)
    boot_clock.follow()
    assert abs(before - hour_ns - boot_clock.utc_minus_boot_ns) < 10_000_000
