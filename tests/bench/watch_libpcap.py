"""`smtp-horizon watch` with libpcap where eBPF could be had: only to compare the two."""

from collections.abc import Sequence

from monitor.cli import watching
from monitor.cli.main import main
from monitor.cli.probes import GiveUp
from probes.pcap.live import LivePcapProbe


def open_libpcap(
    name: str, interfaces: Sequence[str], ports: frozenset[int], give_up: GiveUp
) -> LivePcapProbe:
    del name
    probe = LivePcapProbe(interfaces, ports)
    give_up(probe.needs)
    return probe


if __name__ == "__main__":
    setattr(watching, "open_live_probe", open_libpcap)  # noqa: B010 (the name is not exported)
    main()
