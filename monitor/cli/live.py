"""Which probe watches: eBPF, or libpcap where bcc is missing."""

import logging
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from probes.probe import Probe, ProbeUnavailable

AUTO: Final = "auto"

_LOG: Final = logging.getLogger(__name__)


def open_live_probe(name: str, interfaces: Sequence[str], ports: frozenset[int]) -> Probe:
    """`name`: `auto` or `ebpf`. Raises ProbeUnavailable.

    Only a missing bcc is a reason to fall back: whatever else is wrong is better said than passed over.
    """
    # Imported here, each where it is wanted: the other one's libraries may not be there.
    from probes.ebpf.probe import EbpfProbe  # noqa: PLC0415

    try:
        return EbpfProbe(interfaces, ports)
    except ProbeUnavailable as reason:
        if name != AUTO or can_import_bcc():
            raise
        _LOG.warning("%s; capturing with libpcap meanwhile", reason)
    from probes.pcap.live import LivePcapProbe  # noqa: PLC0415

    return LivePcapProbe(interfaces, ports)


def can_import_bcc() -> bool:
    """bcc comes with the system, not with us."""
    try:
        import_module("bcc")
    except (ImportError, OSError):
        return False
    return True
