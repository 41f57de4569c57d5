"""The work itself on one kernel: boots it with guest.py inside, and judges what that reports."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from probes.capabilities import Capability
from probes.probe import FilterVariant
from tests.kernels.archive import Archive
from tests.kernels.debian import Kernel
from tests.kernels.guest import FLOOD
from tests.kernels.machine import RESULTS, MachineError, boot, last_lines
from tests.kernels.root import write_root
from tests.kernels.verifier import Recorded

FEWEST_SESSIONS: Final = 60
_FEWEST_LEFT_OUT: Final = 50
"""Packets, of two messages of 2 MB: some 70 of 64 kB, or thousands without offloading, each twice
acknowledged."""
_SECONDS: Final = 900.0
_SECONDS_WITH_COMPILER: Final = 1_800.0
_MEMORY_MB: Final = 3_072
_PROCESSORS: Final = 2
_WATCH, _OPENER, _KEEPER, _SERVER = "smtp-horizon", "horizon-opener", "horizon-tap", "horizon-metrics"
_NOBODY: Final = "65534"
# docs/cli.md: what each keeps. Before Linux 5.19 the filter's counts can't be read without CAP_BPF.
_OPENERS: Final = 1 << 1  # CAP_DAC_OVERRIDE
_KEEPERS: Final = 1 << 2 | 1 << 19 | 1 << 21 | 1 << Capability.PERFMON | 1 << Capability.BPF
"""CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN and these two, at most."""
_LAST_WITH_CAP_BPF: Final = (5, 18)


@dataclass(frozen=True, slots=True)
class Outcome:
    kernel: str
    with_compiler: bool
    """Whether bcc compiled in the machine, or what it had compiled on this one was loaded."""
    seconds: float
    account: Mapping[str, Any]
    faults: list[str]


def work(kernel: Kernel, recorded: Recorded | None, folder: Path) -> Outcome:
    """`recorded`: None to compile in the machine, with bcc itself. Raises MachineError."""
    initramfs = folder / f"{kernel.release}-work.cpio"
    with Archive(initramfs) as archive:
        write_root(archive, kernel, recorded.whole if recorded else None, RESULTS)
    done = boot(
        kernel.image,
        initramfs,
        memory_mb=_MEMORY_MB,
        processors=_PROCESSORS,
        seconds=_SECONDS if recorded else _SECONDS_WITH_COMPILER,
        name=kernel.release,
    )
    initramfs.unlink()
    account: dict[str, Any] = {"servers": {}}
    for told in done.results:
        if "server" in told:
            account["servers"][told["server"]] = told
        else:
            account |= told
    if account.get("kernel") != kernel.release:
        raise MachineError(f"{kernel.release}: another kernel answered\n{last_lines(done.console)}")
    faults = [f"{kernel.release}: {fault}" for fault in judged(account)]
    return Outcome(kernel.release, recorded is None, done.seconds, account, faults)


def judged(account: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with what the guest tells (see guest.py)."""
    if "error" in account:
        yield f"the check itself failed: {account['error']}\n{account.get('said', '')}"
        return
    yield from _of_watch(account)
    yield from _of_privileges(account)
    yield from _of_records(account)
    for name, told in account["servers"].items():
        if not told["logged"]:
            yield f"{name} logged no session"
        yield from (f"against {name}'s log: {line}" for line in told["against_log"])


def _of_watch(account: Mapping[str, Any]) -> Iterator[str]:
    said = account["said"]
    if account["status"]:
        yield f"watch ended with status {account['status']}: {said}"
    if "Traceback" in said or "ERROR" in said:
        yield f"watch said: {said}"
    if account["filters"] != [FilterVariant.FULL]:
        yield f"smtp_monitor_ebpf_filter says {account['filters']}, and not that it is the full one"
    for name, what in (
        ("dropped", "packets dropped"),
        ("mismatches", "sessions that look otherwise from inside TLS"),
        ("tap_lost", "events of the TLS tap lost"),
        ("incomplete", "sessions not seen whole"),
    ):
        if account[name]:
            yield f"{account[name]:,.0f} {what}"
    if account["left_out_of_large"] < _FEWEST_LEFT_OUT:
        yield f"of 2 MB only {account['left_out_of_large']:,.0f} packets were left out"
    if account["handshakes"] != FLOOD:
        yield f"{account['handshakes']:,.0f} handshakes came to nothing, not {FLOOD:,}"
    if account["unneeded"] < FLOOD:
        yield f"only {account['unneeded']:,.0f} packets are counted as not needed"
    if account["link"] != [0, 1]:
        yield f"capture_up was {account['link']} while the link was down, and when it was up again"


def _of_privileges(account: Mapping[str, Any]) -> Iterator[str]:
    version = tuple(int(number) for number in account["kernel"].split(".")[:2])
    watchs = 1 << Capability.BPF if version <= _LAST_WITH_CAP_BPF else 0
    allowed = {_WATCH: watchs, _OPENER: _OPENERS, _KEEPER: _KEEPERS, _SERVER: 0}
    seen = {thread["Name"] for thread in account["processes"]}
    if not seen >= allowed.keys():
        yield f"of watch's processes only these are there: {sorted(seen)}"
    for thread in account["processes"]:
        name = thread["Name"] if thread["Name"] in allowed else _WATCH
        held = int(thread["CapPrm"], 16) | int(thread["CapEff"], 16) | int(thread["CapBnd"], 16)
        if held & ~allowed[name]:
            yield f"a thread of {name} has capabilities that it should not: {held:#x}"
        if name != _OPENER and set(thread["Uid"].split()) | set(thread["Gid"].split()) != {_NOBODY}:
            yield f"a thread of {name} is not nobody's: {thread}"
        if thread["NoNewPrivs"] != "1" or thread["Groups"]:
            yield f"a thread of {name} could get privileges, or has groups: {thread}"
    for by, held in account["confined"].items():
        if not held and not (by == "capabilities" and watchs):
            yield f"smtp_monitor_confined says no by {by}"


def _of_records(account: Mapping[str, Any]) -> Iterator[str]:
    if account["sessions"] < FEWEST_SESSIONS or account["records"] != account["sessions"]:
        yield f"{account['records']} records of {account['sessions']} sessions"
    yield from (f"against the clients: {line}" for line in account["against_clients"])
    for channel in ("cleartext", "starttls", "implicit_tls"):
        if not account["channels"].get(channel):
            yield f"no session by {channel}"
    for name, what in (("six", "IPv6"), ("tagged", "802.1Q")):
        if not account[name]:
            yield f"no session over {what}"
    for server, whole in account["tapped"].items():
        if not whole:
            yield f"the tap saw no session with {server} whole"
    yield from (f"not seen whole: {capture}" for capture in account["not_whole"])
