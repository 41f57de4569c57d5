"""Which probe watches: eBPF, or libpcap where eBPF can't."""

import logging
from collections.abc import Sequence
from typing import Final

from probes.probe import Probe, ProbeUnavailable

AUTO: Final = "auto"

_LOG: Final = logging.getLogger(__name__)


def open_live_probe(name: str, interfaces: Sequence[str], ports: frozenset[int]) -> Probe:
    """`name`: `auto` or `ebpf`. Raises ProbeUnavailable.

    `auto` takes libpcap where bcc is missing or the kernel has no BPF for us, and says so. What stops both,
    such as a missing privilege or an unknown interface, is told in eBPF's words: its remedy leads further.
    """
    # Imported here, each where it is wanted: the other one's libraries may not be there.
    from probes.ebpf.probe import EbpfProbe  # noqa: PLC0415

    try:
        return EbpfProbe(interfaces, ports)
    except ProbeUnavailable as reason:
        if name != AUTO:
            raise
        from probes.pcap.live import LivePcapProbe  # noqa: PLC0415

        try:
            probe = LivePcapProbe(interfaces, ports)
        except ProbeUnavailable:
            raise reason from None
        _LOG.warning("%s; capturing with libpcap meanwhile", reason)
        return probe
