"""The same words in clear on the wire, and what their record says: what a tap should see is what a
bystander would see without TLS."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from monitor.sessions.record import Tapped
from monitor.side import Side
from monitor.streams import StreamReader, Streams
from probes.segment import SYN, Segment, reverse
from tests.monitor.sessions.wire import Wire
from tests.segments import PORTS, records_of, segments_of
from tests.timeless import timeless

Json = dict[str, Any]

CAPTURES_IN_CLEAR: Final = (
    "auth_clear",
    "bdat",
    "greylist_postgrey",
    "ipv6",
    "misc_commands",
    "multi_msg_rset",
    "multi_rcpt_reject",
    "null_sender",
    "pipelined",
    "plain_servers",
    "plain_single",
    "postfix_client",
    "smtp_source_multi",
    "starttls_not_used",
    "submission_587",
    "swaks_mix",
)


def record_in_clear(said: Iterable[tuple[Side, bytes]], *, with_banner: bool = True) -> Json:
    wire = Wire().open()
    if with_banner:
        wire.send(Side.SERVER, b"220 mx.example\r\n")
    return wire.play(said).close().record()


def sessions_in_clear(name: str) -> Iterator[tuple[list[tuple[Side, bytes]], Json]]:
    """The sessions of a capture that were in clear and seen whole: what the two sides said, in its order,
    and the record."""
    by_client: dict[bytes, list[Segment]] = {}
    for segment in segments_of(name):
        client = segment.flow if segment.destination_port in PORTS else reverse(segment.flow)
        by_client.setdefault(client, []).append(segment)
    for client, segments in by_client.items():
        records = records_of(segments)
        if len(records) != 1 or not records[0]["capture"]["complete"] or records[0]["channel"] != "cleartext":
            continue
        yield _said(client, segments), records[0]


def _said(client: bytes, segments: Iterable[Segment]) -> list[tuple[Side, bytes]]:
    ear = _Ear()
    streams = Streams(ear)
    for segment in segments:
        side = Side.CLIENT if segment.flow == client else Side.SERVER
        if segment.flags & SYN:
            streams.start(side, (segment.sequence + 1) % (1 << 32))
        else:
            streams.segment(side, segment)
    streams.flush()
    return ear.heard


class _Ear(StreamReader):
    def __init__(self) -> None:
        self.heard: list[tuple[Side, bytes]] = []

    def data(self, side: Side, data: bytes, at: int, heard: int) -> int:
        self.heard.append((side, data))
        return 0

    def passed(self, side: Side, length: int) -> None:
        raise AssertionError

    def left_out(self, side: Side, length: int, edge: bytes, left: int) -> bool:
        raise AssertionError

    def lost(self, side: Side, length: int) -> None:
        raise AssertionError


def lists_of(record: Json | Tapped) -> Json:
    """Transactions and AUTHs, without times."""
    found: Json = json.loads(msgspec.json.encode(record)) if isinstance(record, Tapped) else record
    return {"transactions": timeless(found)["transactions"], "auth": found["auth"]}
