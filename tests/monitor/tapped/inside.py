"""What the clients of tests/captures say they did inside TLS, as the tap of their servers would have told
it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from monitor.sessions.record import SessionRecord, epoch_us
from monitor.side import Side
from probes.tls_tap.event import TapEvent
from tests.capture_truth import CAPTURES
from tests.monitor.tapped.kernel import Kernel, flow_from, halves

Json = dict[str, Any]
Said = list[tuple[Side, bytes]]

CAPTURES_WITH_TLS = (
    "abrupt_ends",
    "anydev_sll",
    "bdat",
    "greylist_postgrey",
    "interleaved",
    "ipv6",
    "mid",
    "recordio_starttls",
    "smtps_465",
    "starttls_5xx",
    "starttls_aborts",
    "starttls_other_clients",
    "starttls_tls12",
    "starttls_tls13",
    "submission_587",
    "swaks_mix",
)
_STEP_NS = 1_000


@dataclass(frozen=True)
class Inside:
    """One session that came to TLS, or tried to."""

    client: tuple[str, int]
    said: Said

    @property
    def is_within_other_tls(self) -> bool:
        """A server has taken up STARTTLS inside TLS."""
        return any(
            data.startswith(b"STARTTLS") and answer.startswith(b"220")
            for (_, data), (_, answer) in pairwise(self.said)
        )

    def events(self, record: SessionRecord, cookie: int) -> list[TapEvent]:
        """Within the session's time."""
        began_us, ended_us = epoch_us(record.start), epoch_us(record.end)
        kernel = Kernel(
            flow=flow_from(record),
            cookie=cookie,
            at_ns=(began_us + ended_us) // 2 * 1_000,
            step_ns=_STEP_NS,
            cut=halves,
        )
        # Where the client gave up, the server may have taken the handshake for completed all the same.
        return kernel.begin().say(self.said).end().events


def sessions_inside(name: str) -> Iterator[Inside]:
    lines = CAPTURES / f"{name}.truth.jsonl"
    if lines.exists():
        sessions = [json.loads(line) for line in lines.read_text().splitlines()]
    else:
        sessions = json.loads((CAPTURES / f"{name}.truth.json").read_text())["sessions"]
    for session in sessions:
        handshake = (session.get("starttls") or {}).get("handshake")
        if handshake is None and not session.get("tls"):
            continue
        completed = handshake == "ok"
        if completed and "commands" not in session:
            continue  # that client did not tell
        ip, port = session["client"]
        yield Inside((ip, port), list(_said(session)) if completed else [])


def _said(session: Json) -> Iterator[tuple[Side, bytes]]:
    if session["tls"] and session["tls"].get("implicit"):
        yield Side.SERVER, b"220 mx.example\r\n"
    messages = iter([one["data"] for one in session["transactions"] if one.get("tls") and one["data"]])
    for line, code, in_tls in session["commands"]:
        if not in_tls:
            continue
        chunk = int(line.split()[1]) if line.startswith("BDAT") else 0
        yield Side.CLIENT, line.encode() + b"\r\n" + b"x" * chunk
        if code is not None:
            yield Side.SERVER, f"{code} words\r\n".encode()
        if line == "DATA" and code == 354:
            message = next(messages)
            body = b"x" * (message.get("wire_bytes", 100) - 5)
            yield Side.CLIENT, body if message.get("cut") else body + b"\r\n.\r\n"
            if message["final_code"] is not None:
                yield Side.SERVER, f"{message['final_code']} words\r\n".encode()
