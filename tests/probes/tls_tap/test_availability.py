"""Whether the tap can run: asked in namespaces of its own, in which something is missing."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")

_ASK = "from monitor.cli.tapping import why_unavailable; print(why_unavailable())"

NO_TRACEFS = "umount /sys/kernel/tracing; umount -q /sys/kernel/debug; exec"
NO_UPROBES = "mount -t tmpfs none /sys/bus/event_source/devices; exec"
NO_TRACEPOINT = "mount -t tmpfs none /sys/kernel/tracing/events/tcp; exec"
GIVE_UP = "exec setpriv --inh-caps=-all --bounding-set="


def _answer(script: str = "exec", *options: str) -> str:
    """Where tracefs is mounted. The script's last words go before the program that asks."""
    mount = "mountpoint -q /sys/kernel/tracing || mount -t tracefs nodev /sys/kernel/tracing; "
    inside = ["unshare", "--mount", *options, "sh", "-c", f'{mount}{script} "$0" -c "$1"']
    done = subprocess.run([*inside, sys.executable, _ASK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def test_root_may_tap() -> None:
    assert _answer() == "None"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (NO_UPROBES, "this kernel has no uprobes; a kernel with CONFIG_UPROBE_EVENTS=y"),
        (NO_TRACEPOINT, "this kernel does not tell of reads from TCP sockets; a kernel of 4.16 or newer"),
    ],
)
def test_what_the_kernel_lacks_is_named_with_what_mends_it(script: str, reason: str) -> None:
    assert _answer(script) == reason


@pytest.mark.parametrize(
    ("capabilities", "reason"),
    [
        ("-sys_ptrace", "no privilege: CAP_SYS_PTRACE missing"),
        ("-sys_admin,-perfmon", "no privilege: this kernel wants CAP_SYS_ADMIN for uprobes"),
        ("-sys_admin,-bpf,-sys_ptrace", "no privilege: CAP_BPF and CAP_SYS_PTRACE missing"),
    ],
)
def test_a_capability_that_is_missing_is_named(capabilities: str, reason: str) -> None:
    assert _answer(f"{GIVE_UP}{capabilities}") == f"{reason}; sudo smtp-horizon watch --tls-tap"


def test_in_a_pid_namespace_of_its_own_it_cannot_run() -> None:
    reason = "the kernel names processes by other numbers than this container does"
    assert _answer("exec", "--pid", "--fork", "--mount-proc") == f"{reason}; docker run --pid=host ..."


def test_where_tracefs_is_not_mounted_it_is_for_the_keeper_alone() -> None:
    assert _answer(NO_TRACEFS) == "None"


def test_a_user_to_whom_tracefs_is_closed_is_told_so() -> None:
    # Root without CAP_DAC_OVERRIDE: others might not be able to read where the project lies.
    closed = "mount -t tmpfs -o mode=700,uid=65534 none /sys/kernel/tracing; "
    drop = "exec setpriv --inh-caps=-all --bounding-set=-dac_override,-dac_read_search"
    reason = "no privilege to look into /sys/kernel/tracing; sudo smtp-horizon watch --tls-tap"
    assert _answer(closed + drop) == reason
