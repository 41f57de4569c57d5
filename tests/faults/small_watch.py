"""`smtp-horizon watch` with little room for what it has not read yet: `small_watch ebpf|libpcap BYTES watch`.

What fills the real room in a second on a large mail server fills this one in a blink on a small machine.
"""

import sys
from functools import partial
from pathlib import Path

from monitor.cli.main import main
from probes.ebpf import probe as ebpf
from probes.pcap import live
from probes.probe import ProbeUnavailable
from tests.lab.network import Network
from tests.lab.watch import Watch


class SmallWatch(Watch):
    def __init__(self, network: Network, folder: Path, kind: str, size_bytes: int) -> None:
        """`kind`: `ebpf` or `libpcap`. `size_bytes`: of the ring buffer, or of libpcap's."""
        super().__init__(network.server, folder)
        self._command[:1] = [sys.executable, "-m", "tests.faults.small_watch", kind, str(size_bytes)]


def _no_ebpf(*_: object) -> None:
    raise ProbeUnavailable("eBPF is left out", "and libpcap taken")


if __name__ == "__main__":
    kind, size_bytes = sys.argv[1:3]
    del sys.argv[1:3]
    if kind == "libpcap":
        setattr(live, "BUFFER_BYTES", int(size_bytes))  # noqa: B010 (a constant elsewhere)
        setattr(ebpf, "EbpfProbe", _no_ebpf)  # noqa: B010 (a class elsewhere)
    else:
        setattr(ebpf, "EbpfProbe", partial(ebpf.EbpfProbe, ring_bytes=int(size_bytes)))  # noqa: B010
    main()
