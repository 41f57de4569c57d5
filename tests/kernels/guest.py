"""The work itself, inside the virtual machine: `python -m tests.kernels.guest RESULTS`.

Real servers and clients run here, and `watch` with its eBPF filter and its TLS tap. The lab's comparison
holds each record against what the client did and was answered, and against the server's log. The findings
go to RESULTS, one JSON object a line; work.py decides which of them are faults.
"""

import json
import os
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from probes.probe import FilterVariant
from tests.kernels.machine import END
from tests.lab import exim, postfix, raw_client, scenario, smtplib_client, tls_scenario
from tests.lab.compare import Record, differences, differences_inside, unmatched
from tests.lab.exim import Exim
from tests.lab.network import INTERFACE, Network, client_address, server_address
from tests.lab.postfix import Face, Postfix
from tests.lab.scenario import RECIPIENT, TLS_1_2, TLS_1_3
from tests.lab.server import MailServer
from tests.lab.tls_scenario import Way, converse
from tests.lab.truth import Endpoint, SessionTruth
from tests.lab.watch import Watch, sample_sum

TAG: Final = 100
_TAGGED: Final = f"{INTERFACE}.{TAG}"
_TAGGED_ADDRESS: Final = {"server": "10.88.0.1", "client": "10.88.0.2"}
_TAGGED_FACE: Final = Face("tagged", 7, 25)
"""Its address is reached over 802.1Q alone."""
FLOOD: Final = 20_000
_OURS: Final = ("10.77.0.0/24", "fd77::/112")
"""Where the servers' addresses are, and no client's."""
_FLOOD_NETWORK: Final = "198.18.0.0/15"  # RFC 2544
_LARGE_LINES: Final = 40_000
"""Of 52 bytes: 2 MB."""
_THREADS: Final = 4
_PATIENCE_SECONDS: Final = 60.0
"""For whatever takes a moment on a real machine."""
_CONFINED: Final = ("user", "capabilities", "system_calls")

_started: Final = time.monotonic()


class SlowWatch(Watch):
    answer_seconds = _PATIENCE_SECONDS
    start_seconds = 900.0  # with a compiler, on a machine that has something else to do, too


class Report:
    """What is told to the other side."""

    def __init__(self, file: Path) -> None:
        self._out = file.open("w")

    def tell(self, **what: object) -> None:
        self._out.write(json.dumps(what | {"at": round(time.monotonic() - _started, 1)}) + "\n")
        self._out.flush()

    def end(self) -> None:
        self._out.write(json.dumps(END) + "\n")
        self._out.close()


def main() -> int:
    report = Report(Path(sys.argv[1]))
    MailServer.start_seconds = 2 * _PATIENCE_SECONDS
    raw_client._TIMEOUT_SECONDS = smtplib_client._TIMEOUT_SECONDS = _PATIENCE_SECONDS  # type: ignore[misc]
    try:
        _work(report)
    except Exception:  # the other side is to see it
        report.tell(error=traceback.format_exc()[-4000:])
    report.tell(kernel=os.uname().release)
    report.end()
    return 0


def _work(report: Report) -> None:
    with Network(addresses=40) as network, ExitStack() as running:
        _add_tags(network)
        folder = network.folder
        servers: list[MailServer] = [
            Postfix(network.server, folder / "postfix", (postfix.MX, postfix.SMTPS, _TAGGED_FACE)),
            Exim(network.server, folder / "exim"),
        ]
        # IPv6 addresses go with the link. Until watch looks again, it does not take them for the host's own.
        ours = [word for where in _OURS for word in ("--local-network", where)]
        watch = SlowWatch(network.server, folder, "--probe", "ebpf", "--tls-tap", *ours)
        with ThreadPoolExecutor(len(servers)) as starting:
            begun = [starting.submit(server.start) for server in servers]
            running.enter_context(watch)
            for server, future in zip(servers, begun, strict=True):
                future.result()
                running.callback(server.stop)
        report.tell(started=True, confined=_confined(watch), processes=list(_processes(network, watch.pid)))
        try:
            truths = _drive(network, watch, report)
            metrics = _at_rest(watch)
            logged = {server.name: server.settle(len(_of(server, truths))) for server in servers}
            status = watch.stop()
        finally:
            report.tell(said=watch.said()[-4000:])
        _compare(report, watch, truths, logged, servers)
        report.tell(
            status=status,
            filters=[
                each.value
                for each in FilterVariant
                if sample_sum(metrics, "smtp_monitor_ebpf_filter", variant=each.value)
            ],
            unneeded=sample_sum(metrics, "smtp_monitor_packets_total", verdict="unneeded"),
            segments=sample_sum(metrics, "smtp_monitor_packets_total", verdict="segment"),
            dropped=sample_sum(metrics, "smtp_monitor_packets_dropped_total"),
            mismatches=sample_sum(metrics, "smtp_monitor_verdict_mismatches_total"),
            tap_lost=sample_sum(metrics, "smtp_monitor_tls_tap_events_lost_total"),
            handshakes=sample_sum(metrics, "smtp_tcp_handshakes_incomplete_total"),
            incomplete=sample_sum(metrics, "smtp_monitor_sessions_incomplete_total"),
            whole=sample_sum(metrics, "smtp_tapped_sessions_total", result="whole"),
            libraries=sample_sum(metrics, "smtp_monitor_tls_tap_libraries"),
        )


def _add_tags(network: Network) -> None:
    """A second network over the same cable, in frames with a tag."""
    for host, name in ((network.server, "server"), (network.client, "client")):
        host.run(["ip", "link", "add", "link", INTERFACE, "name", _TAGGED, "type", "vlan", "id", str(TAG)])
        host.run(["ip", "address", "add", f"{_TAGGED_ADDRESS[name]}/24", "dev", _TAGGED])
        host.run(["ip", "link", "set", _TAGGED, "up"])
    _route(network)


def _route(network: Network) -> None:
    """The tagged face's address over the tagged network; and for the flood a way back that leads nowhere."""
    tagged = server_address(_TAGGED_FACE.number)
    way = ["via", _TAGGED_ADDRESS["server"], "dev", _TAGGED, "src", _TAGGED_ADDRESS["client"]]
    network.client.run(["ip", "route", "replace", f"{tagged}/32", *way])
    network.server.run(["ip", "route", "replace", _FLOOD_NETWORK, "via", client_address(1)])


def _drive(network: Network, watch: Watch, report: Report) -> list[SessionTruth]:
    """Every session; between them the flood, and a cable that is pulled out and put back."""
    truths: list[SessionTruth] = []
    with network.client.threads(_THREADS) as threads:
        before = watch.sample_sum("smtp_monitor_packets_total", verdict="unneeded")
        truths += _results(_large(threads))
        left_out = _eventually(
            lambda: watch.sample_sum("smtp_monitor_packets_total", verdict="unneeded") - before
        )
        report.tell(left_out_of_large=left_out)
        threads.submit(_flood, network).result()
        report.tell(flooded=FLOOD)
        truths += _results(_conversations(threads))
        report.tell(link=[*_down_and_up(network, watch)])
        truths += _results(_afterwards(threads))
    report.tell(driven=len(truths))
    return truths


def _results(futures: Iterable["Future[SessionTruth]"]) -> list[SessionTruth]:
    return [future.result() for future in list(futures)]


_MX: Final = [(server_address(1), 25), (server_address(1, 6), 25)]
_SMTPS: Final = [(server_address(1), 465), (server_address(1, 6), 465)]
_TAGGED_MX: Final = [(server_address(_TAGGED_FACE.number), 25)]
_EXIM: Final = [(server_address(exim.NUMBER), 25), (server_address(exim.NUMBER, 6), 25)]
_EXIM_SMTPS: Final = [(server_address(exim.NUMBER), 465)]


def _client(server: Endpoint, number: int) -> str:
    if server in _TAGGED_MX:
        return _TAGGED_ADDRESS["client"]
    return client_address(5 + number % 30, 6 if ":" in server[0] else 4)


def _begin(
    threads: ThreadPoolExecutor, plan: Iterable[tuple[int, scenario.Conversation, list[Endpoint]]]
) -> Iterator["Future[SessionTruth]"]:
    number = 0
    for times, conversation, servers in plan:
        for server in servers * times:
            number += 1
            yield threads.submit(conversation, server, _client(server, number))


def _large(threads: ThreadPoolExecutor) -> Iterator["Future[SessionTruth]"]:
    """2 MB: most of it nobody needs to see."""
    yield from _begin(threads, [(1, partial(scenario.plain, lines=_LARGE_LINES), [*_MX[:1], *_TAGGED_MX])])


def _inside(server: Endpoint, client: str, *, version: Any, words: tls_scenario.Words) -> SessionTruth:
    return converse(Way(server, version), client, words)


def _conversations(threads: ThreadPoolExecutor) -> Iterator["Future[SessionTruth]"]:
    inside = [
        (1, partial(_inside, version=version, words=words), servers)
        for version in (TLS_1_2, TLS_1_3)
        for words, servers in (
            (tls_scenario.one_message, [*_MX, *_SMTPS, *_EXIM, *_EXIM_SMTPS, *_TAGGED_MX]),
            (tls_scenario.some_refused, [_MX[0], _EXIM[0]]),
            (tls_scenario.pipelined_behind_a_message, [_SMTPS[0], _EXIM[0]]),
        )
    ]
    yield from _begin(
        threads,
        [
            (4, scenario.plain, _MX),
            (2, scenario.plain, _TAGGED_MX),
            (1, partial(scenario.plain, verb="HELO"), _MX),
            (2, scenario.several_messages, _MX),
            (2, scenario.some_refused, _MX),
            (2, scenario.pipelined, _MX),
            (1, scenario.pipelined, _TAGGED_MX),
            (1, scenario.in_chunks, _MX),
            (2, scenario.plain, _EXIM),
            (1, scenario.in_chunks, _EXIM),
            (1, scenario.starttls_failing, _MX),
            (1, scenario.starttls_after_mail, _MX),
            *inside,
        ],
    )
    for version, large in ((TLS_1_2, tls_scenario.large_message), (TLS_1_3, tls_scenario.large_chunks)):
        yield from _begin(threads, [(1, partial(_inside, version=version, words=large), _SMTPS[:1])])


def _afterwards(threads: ThreadPoolExecutor) -> Iterator["Future[SessionTruth]"]:
    """Once the cable is back. The clients are others, too."""
    yield from _begin(threads, [(2, scenario.plain, [*_MX, *_TAGGED_MX]), (1, scenario.starttls, _MX)])
    message = scenario.body().replace(b"..", b" .")
    for number, server in enumerate((*_MX, *_EXIM)):
        for tls in (False, True):
            sender = f"library{number}@client.test"
            arguments = (server, _client(server, number), sender, [RECIPIENT], message)
            yield threads.submit(smtplib_client.send_with_smtplib, *arguments, tls=tls)


def _down_and_up(network: Network, watch: Watch) -> Iterator[float]:
    """What the metric says while the cable is out, and when it is back."""
    network.server.run(["ip", "link", "set", INTERFACE, "down"])
    yield _eventually(lambda: watch.sample_sum("smtp_monitor_capture_up"), wanted=lambda up: up == 0)
    for device in (INTERFACE, _TAGGED):
        network.server.run(["ip", "link", "set", device, "up"])
    # IPv6 addresses and routes go with it.
    for number in (1, exim.NUMBER, _TAGGED_FACE.number):
        address = f"{server_address(number, 6)}/64"
        network.server.run(["ip", "address", "replace", address, "dev", INTERFACE, "nodad"])
    _route(network)
    yield _eventually(lambda: watch.sample_sum("smtp_monitor_capture_up"), wanted=lambda up: up == 1)


def _flood(network: Network) -> None:
    """SYNs from as many addresses. Called by a thread on the client's host."""
    (device,) = json.loads(network.client.run(["ip", "-j", "link", "show", INTERFACE]).stdout)
    (other,) = json.loads(network.server.run(["ip", "-j", "link", "show", INTERFACE]).stdout)
    ethernet = bytes.fromhex((other["address"] + device["address"]).replace(":", "")) + b"\x08\0"
    to = socket.inet_aton(server_address(1))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packets:
        packets.bind((INTERFACE, 0))
        for number in range(FLOOD):
            source = bytes([198, 18 + (number >> 16), number >> 8 & 255, number & 255])
            packets.send(ethernet + _syn(source, to, 1024 + number % 60_000, number))
            if number % 500 == 0:
                time.sleep(0.01)  # the socket's buffer is emptied by the same processor


def _syn(source: bytes, to: bytes, port: int, sequence: int) -> bytes:
    tcp = struct.pack("!HHIIBBHHH", port, 25, sequence, 0, 5 << 4, 2, 64_240, 0, 0)
    checksum = _checksum(source + to + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", checksum) + tcp[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0, source, to)
    return ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:] + tcp


def _checksum(words: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(words) // 2}H", words))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _at_rest(watch: Watch) -> str:
    """The metrics, once no session is open and the flood is over: handshakes that nobody answers are
    counted after a minute or so."""
    watch.await_silence(timeout_seconds=_PATIENCE_SECONDS)
    _eventually(
        lambda: watch.sample_sum("smtp_tcp_handshakes_incomplete_total"),
        wanted=lambda counted: counted >= FLOOD,
        seconds=120,
    )
    return watch.metrics()


def _compare(
    report: Report,
    watch: Watch,
    truths: list[SessionTruth],
    logged: dict[str, list[SessionTruth]],
    servers: list[MailServer],
) -> None:
    records = watch.records()
    pairs, complaints = unmatched(records, truths)
    wrong = [*complaints]
    for record, truth in pairs:
        wrong += [*differences(record, truth), *differences_inside(record, truth)]
    report.tell(
        records=len(records),
        sessions=len(truths),
        against_clients=wrong,
        channels={
            one: sum(record["channel"] == one for record in records) for one in _values(records, "channel")
        },
        six=sum(":" in record["server"]["ip"] for record in records),
        tagged=sum(record["server"]["ip"] == _TAGGED_MX[0][0] for record in records),
        tapped={
            server.name: sum(
                (record["tapped"] or {}).get("result") == "whole" for record in _of(server, records)
            )
            for server in servers
        },
        not_whole=[str(record["capture"]) for record in records if not record["capture"]["complete"]],
    )
    for server in servers:
        pairs, complaints = unmatched(_of(server, records), logged[server.name])
        found = [line for record, truth in pairs for line in differences(record, truth)]
        report.tell(server=server.name, logged=len(logged[server.name]), against_log=complaints + found)


def _values(records: list[Record], name: str) -> set[str]:
    return {record[name] for record in records}


def _of(server: MailServer, sessions: Iterable[Any]) -> list[Any]:
    """Those sessions that were with this server, be they records or truths."""
    addresses = {address for address, _ in server.listeners}
    return [
        one
        for one in sessions
        if (one.server[0] if isinstance(one, SessionTruth) else one["server"]["ip"]) in addresses
    ]


def _confined(watch: Watch) -> dict[str, float]:
    return {by: watch.sample_sum("smtp_monitor_confined", by=by) for by in _CONFINED}


def _processes(network: Network, watch: int) -> Iterator[dict[str, Any]]:
    """What /proc says of each thread of watch and of the processes that it started."""
    listed = {process: _status(Path(f"/proc/{process}/status")) for process in network.server.processes()}
    for process, about in listed.items():
        if process != watch and about.get("PPid") != str(watch):
            continue
        for task in Path(f"/proc/{process}/task").iterdir():
            status = _status(task / "status")
            yield {
                name: status[name] for name in ("Name", "Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapBnd")
            } | {
                "is_watch": process == watch,
                "NoNewPrivs": status["NoNewPrivs"],
            }


def _status(file: Path) -> dict[str, str]:
    lines = file.read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _eventually(
    ask: Callable[[], float], *, wanted: Callable[[float], bool] = bool, seconds: float = _PATIENCE_SECONDS
) -> float:
    """The answer, once it is as wanted, or the last one."""
    deadline = time.monotonic() + seconds
    while not wanted(answer := ask()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return answer


if __name__ == "__main__":
    sys.exit(main())
