"""What a virtual machine says, and what of it is a fault."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from scripts.native import ROOT
from tests.kernels import debian
from tests.kernels.archive import Archive
from tests.kernels.debian import Kernel, KernelUnavailableError
from tests.kernels.machine import END, RESULTS, MachineError, boot, kernel_complaints, last_lines, parsed
from tests.kernels.tools import busybox, ensure_tools
from tests.lab.packages import LabUnavailableError

ENDED = json.dumps(END) + "\n"


def test_results_are_what_stands_before_the_end() -> None:
    assert parsed('{"a": 1}\n\n{"b": 2}\r\n' + ENDED, "6.1", "") == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    "text", ["", '{"a": 1}\n', ENDED + '{"a": 1}\n', '{"a": \n' + ENDED, "Killed\n" + ENDED]
)
def test_without_an_end_or_with_a_line_that_is_none_of_ours_nothing_is_believed(text: str) -> None:
    with pytest.raises(MachineError, match=r"(?s)6\.1: .*\n    \| the last line"):
        parsed(text, "6.1", "first line\nthe last line\n")


@pytest.mark.parametrize(
    "line",
    [
        "[   12.345678] WARNING: CPU: 0 PID: 1 at kernel/bpf/verifier.c:1234 do_check+0x1/0x2",
        "[    1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000010",
        "[    2.5] Oops: 0000 [#1] PREEMPT SMP",
        "[   60.000123] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "[   90.000123] watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
        "[  121.0] INFO: task python3:12 blocked for more than 120 seconds.",
        "[    3.0] Kernel panic - not syncing: Attempted to kill init!",
        "[    3.0] python3[12]: segfault at 0 ip 000 sp 000 error 4",
    ],
)
def test_what_the_kernel_complains_of_is_found(line: str) -> None:
    assert kernel_complaints(f"booting\r\n{line}\r\nthe end\r\n") == [line]


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-29 16:20:08,993 WARNING the TLS tap is on",
        "WARNING: a program's own",
        "[    0.044000] tsc: Unable to calibrate against PIT",
        "[    1.2] mtrr: your CPUs had inconsistent MTRRdefType settings",
    ],
)
def test_what_programs_say_and_what_qemu_always_brings_is_no_complaint(line: str) -> None:
    assert kernel_complaints(line) == []


def test_the_end_of_a_console_is_bounded() -> None:
    assert last_lines("") == "    | (its console is empty)"
    assert len(last_lines("line\n" * 1_000).splitlines()) == 25
    assert len(last_lines("x" * 10_000_000)) < 100_000


BOOT: Final = """
import sys
from pathlib import Path
from tests.kernels import machine
machine.PROGRAM = sys.argv[1]
machine.boot(Path("/nosuch"), Path("/nosuch"), memory_mb=1, processors=1, seconds=600, name="6.1")
"""


def test_a_machine_does_not_outlive_who_started_it(tmp_path: Path) -> None:
    program, number = tmp_path / "qemu", tmp_path / "number"
    program.write_text(f"#!/bin/sh\necho $$ > {number}.new\nmv {number}.new {number}\nexec sleep 600\n")
    program.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-c", BOOT, program], cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as starting:
        while not number.exists():
            assert starting.poll() is None
            time.sleep(0.05)
        starting.kill()
    deadline = time.monotonic() + 30
    while Path("/proc", number.read_text().strip(), "comm").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def machine(tmp_path: Path, script: str) -> tuple[Kernel, Path]:
    try:
        ensure_tools()
        kernel = debian.fetched(debian.RELEASES[1])
    except (LabUnavailableError, KernelUnavailableError) as reason:
        pytest.skip(str(reason))
    initramfs = tmp_path / "initramfs"
    with Archive(initramfs) as archive:
        for folder in ("dev", "proc"):
            archive.folder(folder)
        archive.file(busybox(), "/bin/busybox")
        begin = "/bin/busybox mount -t proc proc /proc\n/bin/busybox --install -s /bin\n"
        begin += "mount -t devtmpfs dev /dev 2>/dev/null\n"
        archive.text("/init", f"#!/bin/busybox sh\n{begin}{script}\n", 0o755)
    return kernel, initramfs


@pytest.mark.live
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("script", "complaint", "last"),
    [
        (
            f"echo '{ENDED.strip()}' > {RESULTS}\necho I hang\nsleep 1000",
            "still running after 40 s",
            "I hang",
        ),
        ("echo c > /proc/sysrq-trigger", "kernel complained", "sysrq triggered crash"),
        ("echo I stop\npoweroff -f", "did not come to its end", "I stop"),
    ],
)
def test_a_machine_that_hangs_crashes_or_stops_is_shown_with_its_last_lines(
    script: str, complaint: str, last: str, tmp_path: Path
) -> None:
    kernel, initramfs = machine(tmp_path, script)
    with pytest.raises(MachineError) as failed:
        boot(kernel.image, initramfs, memory_mb=512, processors=1, seconds=40, name="6.1")
    assert complaint in str(failed.value)
    assert last in str(failed.value)
