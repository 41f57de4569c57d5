"""The count of the tap's events that were lost, where the kernel refuses to tell it."""

import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="making a map needs root"),
]

# Before Linux 5.19, where kernel.unprivileged_bpf_disabled is set, bpf(2) is refused without CAP_BPF. Whether
# that is in effect is not to be seen by a filter of system calls: so looking into a map is refused always.
_ASK = """
import ctypes, errno
from probes.ebpf.loading import LIBBPF
from probes.tls_tap.program import EventsLost
PERCPU_ARRAY = 6
lost = EventsLost(ctypes.CDLL(LIBBPF).bpf_map_create(PERCPU_ARRAY, None, 4, 8, 1, None))
print(lost.count(), *lost.needs().capabilities)
import seccomp
filtering = seccomp.SyscallFilter(seccomp.ALLOW)
filtering.add_rule(seccomp.ERRNO(errno.EPERM), "bpf", seccomp.Arg(0, seccomp.EQ, 1))
filtering.load()
print([capability.name for capability in lost.needs().capabilities])
try:
    print(lost.count())
except OSError as error:
    print(error.strerror)
"""


def test_a_count_that_the_kernel_refuses_is_not_taken_for_none_lost() -> None:
    pytest.importorskip("seccomp", reason="python3-seccomp is not installed")
    said = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["0", "['BPF']", "Operation not permitted"]
    assert said.stderr == ""
