"""What a record lists has a bound, and what is over it costs nothing."""

from monitor.sessions.ledger import LISTED_ITEMS_LIMIT
from monitor.sessions.table import SessionTable
from monitor.side import Side
from tests.monitor.sessions.wire import Wire
from tests.segments import PORTS, SITE, records_of

BEGINNING = """\
S: 220 mx.example.test ESMTP
C: EHLO client.example
S: 250 mx.example.test
C: MAIL FROM:<a@client.example>
S: 250 ok"""


def _recipients(addresses: list[str]) -> Wire:
    wire = Wire().open().say(BEGINNING)
    for address in addresses:
        wire.send(Side.CLIENT, f"RCPT TO:<{address}>\r\n".encode()).send(Side.SERVER, b"250 ok\r\n")
    return wire


def test_more_recipients_than_a_record_lists_are_left_out_at_the_end() -> None:
    addresses = [f"u{number}@example.test" for number in range(LISTED_ITEMS_LIMIT + 100)]
    (record,) = records_of(_recipients(addresses).segments)
    listed = [one["address"] for one in record["transactions"][0]["recipients"]]
    # The EHLO and the MAIL are listed, too.
    assert listed == addresses[: LISTED_ITEMS_LIMIT - 2]
    assert record["anomalies"] == ["list_overflow"]


def test_behind_what_is_too_long_nothing_shorter_is_listed() -> None:
    long = ["x" * 12_000 + f"{number}@example.test" for number in range(22)]
    (record,) = records_of(_recipients([*long, "short@example.test"]).segments)
    listed = [one["address"] for one in record["transactions"][0]["recipients"]]
    assert listed == long[:21]
    assert "list_overflow" in record["anomalies"]


def test_what_is_not_listed_is_not_counted_as_kept() -> None:
    table = SessionTable(PORTS, SITE, lambda _: None)
    kept = []
    for number, segment in enumerate(_recipients(["u@example.test"] * (3 * LISTED_ITEMS_LIMIT)).segments):
        table.segment(segment)
        if number % LISTED_ITEMS_LIMIT == 0:
            kept.append(table.buffered_bytes)
    assert kept[-1] == kept[-2] == kept[-3] > kept[0]
