"""How much memory a session takes while it is open: it is what tens of thousands of them have to fit into."""

import gc
import tracemalloc
from collections.abc import Callable
from typing import Final

import pytest

from monitor.sessions.record import SessionRecord
from monitor.sessions.table import SessionTable
from scripts.native import libraries
from tests.monitor.sessions.wire import Wire
from tests.segments import PORTS, SITE

SESSIONS: Final = 500

BANNER: Final = "S: 220 mx.test ESMTP\n"
GREETING: Final = BANNER + "C: EHLO client.test\nS: 250-mx.test\nS: 250-PIPELINING\nS: 250 8BITMIME\n"
RECIPIENT: Final = (
    GREETING
    + "C: MAIL FROM:<a@client.test>\nS: 250 2.0.0 Ok\nC: RCPT TO:<user1@example.test>\nS: 250 2.0.0 Ok\n"
)
MESSAGE: Final = RECIPIENT + "C: DATA\nS: 354 Go ahead\nC: Subject: unfinished\nC: \nC: This goes on.\n"


@pytest.mark.skipif(not libraries(), reason="nothing is compiled here: sources take more")
@pytest.mark.parametrize(
    ("transcript", "most_bytes"),
    [("", 1_500), (BANNER, 1_750), (GREETING, 1_800), (RECIPIENT, 2_300), (MESSAGE, 2_550)],
)
def test_an_open_session_takes_little_memory(transcript: str, most_bytes: int) -> None:
    """Limits: a little above what was measured, so that a list or set for every session is told."""
    open_sessions(1, transcript)  # what is made once is made
    needed = traced_bytes(lambda: open_sessions(SESSIONS, transcript))
    assert needed / SESSIONS <= most_bytes


def open_sessions(number: int, transcript: str) -> SessionTable:
    records: list[SessionRecord] = []
    table = SessionTable(PORTS, SITE, records.append)
    for client in range(number):
        for segment in Wire(client_port=1_024 + client, first=1 << 31).open().say(transcript).segments:
            table.segment(segment)
    assert table.open_sessions == number
    return table


def traced_bytes(make: Callable[[], SessionTable]) -> int:
    """What Python holds for a table after it was made."""
    gc.collect()
    tracemalloc.start()
    try:
        table = make()
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del table
    return held
