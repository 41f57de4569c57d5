from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.side import Side
from monitor.tls.records import APPLICATION_DATA, HANDSHAKE, RecordReader, RecordSink, looks_like_tls


class Heard(RecordSink):
    """Writes down what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[int, int]] = []
        self.fragments = b""
        self.lost = 0

    def fragment(self, side: Side, content_type: int, data: bytes) -> None:
        self.fragments += data

    def fragment_lost(self, side: Side, content_type: int, length: int) -> None:
        self.lost += length

    def record(self, side: Side, content_type: int, length: int) -> None:
        self.records.append((content_type, length))


def record(content_type: int, body: bytes, minor: int = 3) -> bytes:
    return bytes((content_type, 3, minor)) + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    ("first_bytes", "answer"),
    [
        ("", None),
        ("16", None),
        ("160301", None),
        ("16030102", None),
        ("1603010200", True),
        ("1503030002", True),
        ("1703044000", True),
        ("1603010000", False),  # an empty record
        ("160301ffff", False),  # longer than any
        ("160301ff", False),
        ("1605", False),
        ("160305", False),
        ("80", None),
        ("802e01", None),
        ("802e010002", True),
        ("802e010303", True),
        ("802e0104", False),
        ("800301", None),
        ("8003010301", False),  # too short for a hello
        ("802e04", False),
    ],
)
def test_a_few_bytes_tell_tls_from_anything_else(first_bytes: str, answer: bool | None) -> None:
    assert looks_like_tls(bytes.fromhex(first_bytes)) is answer


@pytest.mark.parametrize(
    "line",
    [
        "EHLO a\r\n",
        "220 mx ESMTP\r\n",
        "\r\n",
        "QUIT\n",
        "\t",
        "é",
        "ÀÈ: ï",
        "GET / HTTP/1.1\r\n",
        "PROXY TCP4 ",
    ],
)
def test_text_is_never_tls(line: str) -> None:
    assert looks_like_tls(line.encode()) is not True
    assert line.encode()[0] >= 0x80 or looks_like_tls(line.encode()) is False


@given(st.text(st.characters(min_codepoint=32, codec="utf-8"), min_size=3))
def test_no_printable_text_is_tls(text: str) -> None:
    assert looks_like_tls(text.encode()) is not True


@given(
    bodies=st.lists(
        st.tuples(st.sampled_from([20, 21, 22, 23]), st.binary(min_size=1, max_size=60)), max_size=8
    ),
    tail=st.sampled_from([b"", b"QUIT\r\n", b"\x16\x03x", b"\x17\x03\x03\xff\xff...", b"\x16"]),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_any_split_gives_the_same_records_and_the_same_clear_text(
    bodies: list[tuple[int, bytes]], tail: bytes, cuts: list[int]
) -> None:
    stream = b"".join(record(*each) for each in bodies) + tail
    whole = Heard()
    clear = RecordReader(Side.SERVER, whole).receive(stream)
    assert whole.records == [(content_type, len(body)) for content_type, body in bodies]
    assert clear == (tail if len(tail) > 1 else b"")
    split = Heard()
    reader = RecordReader(Side.SERVER, split)
    borders = [0, *sorted(at for at in cuts if at < len(stream)), len(stream)]
    pieces = [reader.receive(stream[a:b]) for a, b in pairwise(borders)]
    assert b"".join(pieces) == clear
    assert (split.records, split.fragments) == (whole.records, whole.fragments)


def test_only_handshake_and_alert_bodies_are_handed_on() -> None:
    heard = Heard()
    reader = RecordReader(Side.SERVER, heard)
    reader.receive(
        record(HANDSHAKE, b"hello") + record(APPLICATION_DATA, b"secret") + record(21, b"\x02\x28")
    )
    assert heard.fragments == b"hello\x02\x28"


def test_a_loss_within_a_body_keeps_the_framing() -> None:
    heard = Heard()
    reader = RecordReader(Side.SERVER, heard)
    stream = record(APPLICATION_DATA, bytes(100))
    reader.receive(stream[:50])
    assert reader.lost(len(stream) - 50)
    assert heard.records == [(APPLICATION_DATA, 100)]
    assert reader.receive(b"250 Ok\r\n") == b"250 Ok\r\n"


@pytest.mark.parametrize("length", [0, 56, 1000])
def test_any_other_loss_ends_the_framing_until_a_record_begins_a_piece(length: int) -> None:
    heard = Heard()
    reader = RecordReader(Side.SERVER, heard)
    reader.receive(record(APPLICATION_DATA, bytes(100))[:50])
    assert not reader.lost(length)
    heard.records.clear()
    assert reader.receive(b"250 Ok\r\n") == b""
    assert reader.receive(record(APPLICATION_DATA, bytes(30)) + b"no header") == b""
    assert heard.records == []
    assert reader.receive(record(APPLICATION_DATA, bytes(30)) + record(APPLICATION_DATA, bytes(9))[:8]) == b""
    assert heard.records == [(APPLICATION_DATA, 30)]
    assert reader.receive(bytes(6) + b"250 Ok\r\n") == b""
    assert heard.records == [(APPLICATION_DATA, 30), (APPLICATION_DATA, 9)]


def test_a_lost_piece_of_a_handshake_body_is_reported() -> None:
    heard = Heard()
    reader = RecordReader(Side.SERVER, heard)
    reader.receive(record(HANDSHAKE, bytes(100))[:50])
    assert reader.lost(20)
    assert (heard.lost, len(heard.fragments)) == (20, 45)


def test_a_reader_keeps_no_more_than_four_bytes() -> None:
    reader = RecordReader(Side.SERVER, Heard())
    stream = record(APPLICATION_DATA, bytes(16_000)) * 20
    for at in range(0, len(stream), 977):
        reader.receive(stream[at : at + 977])
        assert len(reader._held) <= 4
