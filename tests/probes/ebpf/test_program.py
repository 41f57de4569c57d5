"""What the user is told where the eBPF probe can't run."""

import mmap
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from probes.ebpf import program
from probes.ebpf.probe import EbpfProbe
from probes.ebpf.program import Program, tried
from probes.ebpf.tap import AnyTap, InterfaceTap
from probes.probe import FilterVariant, ProbeUnavailable
from tests.probes.ebpf.rejected_filter import break_full_filter, copy_sources

needs_root = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have something to give up"),
]
# asm-generic/socket.h
SO_DETACH_FILTER, SO_ATTACH_BPF = 27, 50

NEEDS = """
import mmap
from probes.ebpf.program import Program
program = Program(frozenset(), mmap.PAGESIZE, flows=1024)
{}
print([capability.name for capability in program.needs().capabilities])
"""
# As a kernel before 5.19 refuses to look into a map, though that would ask for the capability. Where it is in
# effect is not to be seen by a filter: so it is refused always.
REFUSING = """
import errno, seccomp
filtering = seccomp.SyscallFilter(seccomp.ALLOW)
filtering.add_rule(seccomp.ERRNO(errno.EPERM), "bpf", seccomp.Arg(0, seccomp.EQ, 1))
filtering.load()
"""
ASK = """
from probes.ebpf.program import tried
from probes.probe import ProbeUnavailable
try:
    print(*tried())
except ProbeUnavailable as reason:
    print(reason)
"""


def answer(*prefix: str, ask: str = ASK, python: str | Path = sys.executable) -> str:
    """What a Python with that command before it says: one line, and nothing on standard error."""
    finished = subprocess.run(
        [*prefix, python, "-c", ask],
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stderr == ""
    (line,) = finished.stdout.splitlines()
    return line


def with_capabilities(*capabilities: str) -> list[str]:
    """Root with these alone: another user might not be able to read where the project lies."""
    sets = ",".join(["-all", *(f"+{capability}" for capability in capabilities)])
    return ["setpriv", "--inh-caps", "-all", "--bounding-set", sets]


@pytest.fixture
def writable_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "ebpf"
    copy_sources(folder)
    monkeypatch.setattr(program, "_FOLDER", folder)
    return folder


class TestAsRoot:
    pytestmark = needs_root

    def test_root_lacks_nothing(self) -> None:
        assert tried() == (FilterVariant.FULL, "")

    def test_a_kernel_that_shows_a_map_to_whoever_holds_it_wants_no_capability(self) -> None:
        if tuple(map(int, platform.release().split(".")[:2])) < (5, 19):
            pytest.skip("this kernel does not")
        assert answer(ask=NEEDS.format("")) == "[]"

    @pytest.mark.parametrize(("capability", "kept"), [("bpf", "BPF"), ("sys_admin", "SYS_ADMIN")])
    def test_where_the_kernel_refuses_that_one_capability_is_kept(self, capability: str, kept: str) -> None:
        pytest.importorskip("seccomp", reason="python3-seccomp is not installed")
        prefix = with_capabilities("net_raw", capability)
        assert answer(*prefix, ask=NEEDS.format(REFUSING)) == f"['{kept}']"

    def test_nobody_can_take_the_filter_off_its_socket(self) -> None:
        loaded = Program(frozenset(), mmap.PAGESIZE, flows=1_024)
        for tap in (InterfaceTap("lo", loaded.descriptor), AnyTap(loaded.descriptor)):
            with pytest.raises(PermissionError):
                tap._socket.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
            with pytest.raises(PermissionError):
                tap._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, loaded.descriptor)
            tap.close()
        loaded.close()

    def test_two_capabilities_are_enough(self) -> None:
        said = answer(*with_capabilities("net_raw", "bpf"))
        assert said == "plain_without_perfmon CAP_PERFMON missing"

    def test_with_a_third_it_is_the_full_filter(self) -> None:
        assert answer(*with_capabilities("net_raw", "bpf", "perfmon")).strip() == "full"

    def test_a_full_filter_that_the_verifier_rejects_leaves_the_plain_one_and_its_words(
        self, writable_sources: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        break_full_filter(writable_sources)
        variant, why_not_full = tried()
        assert variant is FilterVariant.PLAIN
        assert why_not_full.startswith("the kernel's verifier rejects it: ")
        assert re.search(r"R\d .*(unbounded memory access|negative|invalid)", why_not_full)
        assert "\n" not in why_not_full
        assert capfd.readouterr() == ("", "")

    def test_any_other_refusal_is_no_reason_to_try_the_plain_one(self, writable_sources: Path) -> None:
        (writable_sources / "appetite.c").write_text("integer nothing;\n")  # which the plain one has, too
        with pytest.raises(ProbeUnavailable, match="can't be compiled"):
            tried()

    def test_it_can_be_attached_where_a_socket_may_hold_20_kb(self) -> None:
        """As before Linux 6.8, whose network namespaces have no limit of their own."""
        limit = "/proc/sys/net/core/optmem_max"
        lower = f'test ! -e {limit} || echo 20480 > {limit}; exec "$@"'
        assert answer("unshare", "--net", "sh", "-c", lower, "sh").strip() == "full"

    def test_without_privilege_one_line_names_what_is_missing(self) -> None:
        assert "CAP_NET_RAW and CAP_BPF missing; run it as root" in answer(*with_capabilities())
        assert ": CAP_BPF missing; run it as root" in answer(*with_capabilities("net_raw"))

    def test_a_kernel_without_ring_buffer_is_told_from_one_that_forbids(self) -> None:
        pytest.importorskip("seccomp", reason="python3-seccomp is not installed")
        said = answer(ask=REFUSING.replace("EPERM", "EINVAL").replace("EQ, 1", "EQ, 0") + ASK)
        assert "can't be loaded: this kernel has no BPF ring buffer; it needs Linux 5.8 or newer" in said

    def test_a_limit_on_locked_memory_is_named_with_what_raises_it(self) -> None:
        """Before Linux 5.11 maps are held against it, and too much is refused as EPERM: by seccomp here, to
        the program alone, so that a small map can be made."""
        pytest.importorskip("seccomp", reason="python3-seccomp is not installed")
        ask = REFUSING.replace("EQ, 1", "EQ, 5") + ASK
        said = answer("prlimit", "--memlock=65536:65536", *with_capabilities("net_raw", "bpf"), ask=ask)
        assert "it needs more locked memory than 64 kB; raise the limit" in said
        assert "LimitMEMLOCK=infinity" in said
        assert "ulimit -l" in said

    def test_root_of_a_container_is_told_that_the_kernel_forbids_it(self) -> None:
        container = ["unshare", "--user", "--map-root-user", "--net"]
        if subprocess.run([*container, "true"], capture_output=True, check=False).returncode != 0:
            pytest.skip("no user namespaces here (in a chroot there are none)")
        said = answer(*container)
        assert said.startswith("the kernel forbids BPF here (a container, ")

    def test_what_clang_says_is_cut_to_its_first_error(
        self, writable_sources: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        source = writable_sources / "filter.c"
        source.write_text(source.read_text().replace("int hand_up_watched", "integer hand_up_watched"))
        with pytest.raises(ProbeUnavailable) as caught:
            tried()
        said = str(caught.value)
        assert "can't be compiled: filter.c:" in said
        assert "error: unknown type name 'integer'; run `apt-get install --reinstall" in said
        assert "\n" not in said
        assert capfd.readouterr() == ("", "")

    def test_of_what_the_verifier_says_the_last_words_are_shown(
        self, writable_sources: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        source = writable_sources / "event.c"
        source.write_text(source.read_text().replace("if (all_but_one < room && ", "if ("))
        with pytest.raises(ProbeUnavailable) as caught:
            tried()
        said = str(caught.value)
        assert said.startswith("the kernel's verifier rejects the eBPF filter: R4 ")
        assert platform.release() not in said
        assert "\n" not in said
        assert capfd.readouterr() == ("", "")

    def test_the_environment_is_left_as_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BCC_KERNEL_SOURCE", "/elsewhere")
        tried()
        assert os.environ["BCC_KERNEL_SOURCE"] == "/elsewhere"
        monkeypatch.delenv("BCC_KERNEL_SOURCE")
        tried()
        assert "BCC_KERNEL_SOURCE" not in os.environ


def environment_with(folder: Path, name: str, text: str) -> Path:
    """The Python of a virtual environment that has this module before all that ours has."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / name).write_text(text)
    (packages / "ours.pth").write_text("\n".join(path for path in sys.path if path))
    return folder / "bin/python"


def test_without_bcc_the_package_is_named(tmp_path: Path) -> None:
    python = environment_with(tmp_path / "venv", "bcc.py", "import of_something_not_there")
    said = answer(python=python)
    assert "apt-get install python3-bpfcc" in said
    assert "--system-site-packages" in said
    assert "of_something_not_there" in said


def test_another_package_of_the_name_bcc_is_told_from_it(tmp_path: Path) -> None:
    python = environment_with(tmp_path / "venv", "bcc.py", "")
    assert "is not the BPF Compiler Collection" in answer(python=python)


def test_bcc_is_not_imported_before_it_is_needed() -> None:
    ask = "import sys, probes.ebpf.probe; print('bcc' in sys.modules)"
    assert answer(ask=ask) == "False"


def test_an_unknown_interface_is_answered_with_those_that_exist() -> None:
    with pytest.raises(ProbeUnavailable, match=r"^there is no interface 'eht0'; choose from: lo,.* any$"):
        EbpfProbe(["lo", "eht0"], frozenset({25}))


def test_any_beside_another_interface_is_refused() -> None:
    with pytest.raises(ProbeUnavailable, match=r"^`any` includes the other interfaces; name it alone"):
        EbpfProbe(["any", "lo"], frozenset({25}))
