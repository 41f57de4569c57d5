"""`smtp-horizon watch` with libpcap where eBPF could be had: only to compare the two."""

from collections.abc import Sequence

from monitor.cli import watching
from monitor.cli.main import main
from probes.pcap.live import LivePcapProbe


def open_libpcap(name: str, interfaces: Sequence[str], ports: frozenset[int]) -> LivePcapProbe:
    del name
    return LivePcapProbe(interfaces, ports)


if __name__ == "__main__":
    setattr(watching, "open_live_probe", open_libpcap)  # noqa: B010 (the name is not exported)
    main()
