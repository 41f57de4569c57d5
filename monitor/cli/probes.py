"""Which probe reads or watches, by its name on the command line."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from monitor.cli.progress import LateProgress
from probes.probe import Probe, ProbeUnavailable

if TYPE_CHECKING:  # `read` has none, and imports are most of a short run
    from probes.capabilities import Needs

AUTO: Final = "auto"
PYSHARK: Final = "pyshark"

_LOG: Final = logging.getLogger(__name__)

PLAIN_FILTER: Final = (
    "capturing with the %s eBPF filter, which hands up what nobody needs as well, and costs more: %s"
)
"""Which filter, and why not the full one."""

# Probes are imported where they are wanted: the others' libraries may not be there, and take time to load.


class FilesProbe(Probe, Protocol):
    """A probe of capture files."""

    @property
    def total_bytes(self) -> int | None:
        """Of all files; None where it can't be said how much of them is consumed."""


def open_files_probe(
    name: str, paths: Sequence[str], ports: frozenset[int], progress: LateProgress | None
) -> FilesProbe:
    """`name`: `pcap` or `pyshark`. Raises ProbeUnavailable, CaptureFileError."""
    if name == PYSHARK:
        from probes.tshark.probe import TsharkFilesProbe  # noqa: PLC0415

        return TsharkFilesProbe(paths, ports, progress=progress)
    from probes.pcap.files import CaptureFilesProbe  # noqa: PLC0415

    return CaptureFilesProbe(paths, ports, progress=progress)


GiveUp = Callable[["Needs"], None]
"""Gives up all privileges but those that the probe needs."""


def open_live_probe(name: str, interfaces: Sequence[str], ports: frozenset[int], give_up: GiveUp) -> Probe:
    """`name`: `auto`, `ebpf` or `pyshark`. Raises ProbeUnavailable, and what `give_up` raises.

    `give_up` is called once, when all is open that wants a privilege.

    `auto` takes libpcap where bcc is missing or the kernel has no BPF for us; without the privilege for
    either, dumpcap, which may have it; and says so. What stops all of them, as an unknown interface does, is
    told in eBPF's words: its remedy leads further.
    """
    if name == PYSHARK:
        return _pyshark(interfaces, ports, give_up)
    from probes.ebpf.probe import EbpfProbe  # noqa: PLC0415

    try:
        ebpf = EbpfProbe(interfaces, ports)
        if ebpf.why_not_full:
            _LOG.warning(PLAIN_FILTER, ebpf.filter_variant, ebpf.why_not_full)
        return _without_privileges(ebpf, give_up)
    except ProbeUnavailable as reason:
        if name != AUTO:
            raise
        for substitute, program in ((_libpcap, "libpcap"), (_pyshark, "dumpcap and tshark")):
            with suppress(ProbeUnavailable):
                probe = substitute(interfaces, ports, give_up)
                _LOG.warning("%s; capturing with %s meanwhile", reason, program)
                return probe
        raise


class _LiveProbe(Probe, Protocol):
    """A probe that wants its privileges to open."""

    @property
    def needs(self) -> "Needs":
        """From now on."""


def _without_privileges(probe: _LiveProbe, give_up: GiveUp) -> Probe:
    try:
        give_up(probe.needs)
    except BaseException:
        probe.close()
        raise
    return probe


def _libpcap(interfaces: Sequence[str], ports: frozenset[int], give_up: GiveUp) -> Probe:
    from probes.pcap.live import LivePcapProbe  # noqa: PLC0415

    return _without_privileges(LivePcapProbe(interfaces, ports), give_up)


def _pyshark(interfaces: Sequence[str], ports: frozenset[int], give_up: GiveUp) -> Probe:
    from probes.tshark.probe import LiveTsharkProbe  # noqa: PLC0415

    return LiveTsharkProbe(interfaces, ports, give_up=give_up)
