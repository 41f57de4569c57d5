"""What is left of root when its privileges are given up: found out by trying, in a process of its own."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are x86-64's"),
]

ROOT = Path(__file__).parents[3]

OF_ROOT = {"read /etc/shadow", "read the memory of a process of root's"}


def _outcomes(*arguments: str) -> dict[str, str | None]:
    command = [sys.executable, "-m", "tests.monitor.cli.bad_parser", *arguments]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, check=True)
    outcomes: dict[str, str | None] = json.loads(done.stdout)
    assert outcomes.pop("ordinary work") is None
    # Those of the filter are the eBPF probe's, which starts no programs.
    assert (outcomes.pop("look into a BPF map") is None) == ("starts_programs" not in arguments)
    return outcomes


@pytest.fixture(scope="module")
def filtered() -> dict[str, str | None]:
    pytest.importorskip("seccomp", reason="python3-seccomp is not installed")
    return _outcomes()


def test_nothing_works_that_somebody_would_try_who_owns_the_parser(filtered: dict[str, str | None]) -> None:
    missing = {"clone3", "openat2"}
    assert {filtered[name] for name in OF_ROOT} == {"EACCES"}
    assert {filtered[name] for name in missing} == {"ENOSYS"}
    assert {filtered[name] for name in filtered.keys() - missing - OF_ROOT} == {"EPERM"}


def test_what_the_filter_denies_would_work_without_it(filtered: dict[str, str | None]) -> None:
    unfiltered = _outcomes("no_seccomp")
    the_users_doing = {name for name, error in unfiltered.items() if error == filtered[name]}
    denied_by_the_kernel = {*OF_ROOT, "become root", "packet socket", "mount"}
    if Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text().strip() != "0":
        denied_by_the_kernel.add("make a BPF map")
    assert the_users_doing == denied_by_the_kernel


def test_a_probe_that_starts_programs_leaves_less_to_be_denied(filtered: dict[str, str | None]) -> None:
    outcomes = _outcomes("starts_programs")
    assert {name for name, error in outcomes.items() if error not in (None, filtered[name])} == {
        *("execve", "connect")  # which went as far as to find nothing there
    }
    assert {name for name, error in outcomes.items() if error is not None} == {
        *OF_ROOT,
        *(
            "become root",
            "packet socket",
            "execve",
            "connect",
            "clone3",
            "make a BPF map",
        ),
        *(
            "mount",
            "perf events",
            "ptrace",
            "name space of users",
            "name space of users, by clone",
            "io_uring",
        ),
    }


def test_where_an_old_kernel_wants_cap_bpf_it_is_of_no_use(filtered: dict[str, str | None]) -> None:
    assert _outcomes("keeps_bpf") == filtered
    assert _outcomes("keeps_bpf", "no_seccomp")["make a BPF map"] is None


def test_libpcap_may_still_make_packet_sockets_and_no_others(filtered: dict[str, str | None]) -> None:
    outcomes = _outcomes("keeps_net_raw")
    more = {name for name, error in outcomes.items() if error != filtered[name]}
    assert more == {"packet socket", "promiscuous mode"}


def test_the_keeper_of_the_tap_may_look_where_root_may_and_attach_and_no_more(
    filtered: dict[str, str | None],
) -> None:
    outcomes = _outcomes("keeps_the_tap")
    more = {name for name, error in outcomes.items() if error != filtered[name]}
    assert more == {*OF_ROOT, "openat2", "perf events"}
    assert {name for name, error in outcomes.items() if error is None} == {*OF_ROOT, "openat2"}
    assert outcomes["perf events"] == "ENOENT"  # which asked for nothing that there is
