"""Rows as tshark writes them, and rows as it never should."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from probes.probe import PacketCounts, Verdict
from probes.tshark.rows import FIELDS, RowError, RowReader
from tests.fuzz.seeds import captured_sessions
from tests.segments import PORTS

MAX_BYTES: Final = 1_500
WORDS: Final = (
    *(
        b"\t",
        b"\n",
        b":",
        b".",
        b"0",
        b"1",
        b"25",
        b"True",
        b"False",
        b"6",
        b"51",
        b"44",
        b"0x00000010",
        b"-1",
    ),
    *(b"eth:ethertype:ip:tcp", b"eth:ethertype:ipv6:tcp", b"ip", b"ipv6", b"icmp", b"tcp", b"sll", b"data"),
    *(b"1795355448.010408000", b"192.0.2.1", b"2001:db8::1", b"4294967295", b"0x0002", b"185", b"64"),
)


def check(data: bytes) -> object:
    """Rows of one tshark, a line each."""
    counts = PacketCounts()
    reader = RowReader(PORTS, counts)
    answers: list[object] = []
    rows = 0
    for text in data.decode("utf-8", "replace").split("\n"):
        before = counts.seen.total()
        try:
            number, segment = reader.read(text)
        except RowError as error:
            answers.append(str(error))
            continue
        rows += 1
        assert number is not None
        assert counts.seen.total() - before in (1, 2)
        if segment is not None:
            assert len(segment.flow) in (12, 36)
            assert 0 <= segment.flags < 0x100
            answers.append(segment.values())
    reader.flush()
    assert counts.seen.total() - counts.seen[Verdict.FRAGMENT] <= rows + len(answers)
    return answers, sorted(counts.seen.items()), sorted(counts.dropped.items())


def seeds() -> Iterator[bytes]:
    for _, segments in captured_sessions(700):
        rows = []
        for number, (_, segment) in enumerate(segments[:6], 1):
            is_ipv4 = len(segment.flow) == 12
            values = dict.fromkeys(FIELDS, "")
            source, destination = str(ip_address(segment.source)), str(ip_address(segment.destination))
            values |= {
                "frame.number": str(number),
                "frame.time_epoch": f"{segment.at_ns // 10**9}.{segment.at_ns % 10**9:09}",
                "frame.protocols": f"eth:ethertype:{'ip' if is_ipv4 else 'ipv6'}:tcp",
                "ip.src" if is_ipv4 else "ipv6.src": source,
                "ip.dst" if is_ipv4 else "ipv6.dst": destination,
                "tcp.srcport": str(segment.source_port),
                "tcp.dstport": str(segment.destination_port),
                "tcp.seq_raw": str(segment.sequence),
                "tcp.ack_raw": str(segment.acknowledgement),
                "tcp.flags": f"0x{segment.flags:04x}",
                "tcp.len": str(segment.length),
                "tcp.payload": segment.payload.hex(),
            }
            if is_ipv4:
                values |= {"ip.proto": "6", "ip.id": "0x0001", "ip.flags.mf": "0", "ip.frag_offset": "0"}
            rows.append("\t".join(values.values()))
        yield "\n".join(rows).encode()[:MAX_BYTES]
