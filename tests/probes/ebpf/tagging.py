"""A tagged network: every packet on an interface carries VLAN tags, unknown to those who talk over it."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import probes.ebpf
from tests.lab.network import Namespace

SOURCE = Path(__file__).with_name("tags.c")
KERNEL_SOURCE = Path(probes.ebpf.__file__).with_name("kernel_source")


@contextmanager
def tagged(namespaces: Sequence[Namespace], interface: str, tags: int, folder: Path) -> Iterator[None]:
    """Tags what the interface of each namespace sends, until the namespaces are gone."""
    pins = folder / "bpf"
    pins.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", pins], check=True)
    try:
        # In a process of its own: it leaves nothing in this one.
        arguments = [sys.executable, __file__, str(tags), str(pins)]
        environment = os.environ | {"BCC_KERNEL_SOURCE": str(KERNEL_SOURCE)}
        subprocess.run(arguments, env=environment, check=True)
        for namespace in namespaces:
            namespace.run(["tc", "qdisc", "add", "dev", interface, "clsact"])
            for direction, function in (("egress", "put_on"), ("ingress", "take_off")):
                target = ["dev", interface, direction, "bpf", "direct-action"]
                namespace.run(["tc", "filter", "add", *target, "object-pinned", str(pins / function)])
        yield
    finally:
        subprocess.run(["umount", pins], check=True)


def _pin(tags: str, pins: Path) -> None:
    from bcc import BPF, lib  # noqa: PLC0415  only the process that pins needs it

    program = BPF(text=SOURCE.read_bytes(), cflags=[f"-DPAGE_SIZE={mmap.PAGESIZE}", f"-DTAGS={tags}"])
    for name in (b"put_on", b"take_off"):
        function = program.load_func(name, BPF.SCHED_CLS)
        assert lib.bpf_obj_pin(function.fd, bytes(pins / name.decode())) == 0


if __name__ == "__main__":
    _pin(sys.argv[1], Path(sys.argv[2]))
