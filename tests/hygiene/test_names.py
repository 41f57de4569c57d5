"""Whatever strangers call themselves: no label has it, no terminal obeys it, no line of JSON breaks."""

import json
import os
import re
import ssl
import unicodedata
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.hygiene.conftest import Said, hear
from tests.hygiene.wire import Server, converse

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="capturing needs root"),
]

MARK: Final = b"StRaNgEr"
"""In everything that is sent, so that it can be found again."""

NAMES: Final = {
    "a label's end": MARK + b'"} 1\\nsmtp_forged_total{a="b',
    "quotes and backslashes": MARK + b"\\\"'`\\\\\\",
    "colours": MARK + b"\x1b[31mred\x1b[2J\x1b[H",
    "a title": MARK + b"\x1b]0;owned\x07\x1b]8;;http://evil.example\x1b\\",
    "c1": MARK + "\u009b31m\u009d0;owned\u009c\u0085".encode(),
    "c1 as bytes": MARK + b"\x9b31m\x9d0;owned\x9c",
    "bidi": MARK + "\u202eevil\u2066\u2069\u200f\u061c".encode(),
    "separators": MARK + "\u2028\u2029\x0b\x0c\x1c\x1d\x1e\x85".encode(),
    "no utf-8": MARK + b"\xff\xfe\xc0\xaf\xed\xa0\x80\xf5\x80",
    "nul": MARK + b"\0\0after",
    "del, bell and backspace": MARK + b"\x7f\x07\x08\x08\x08",
    "a carriage return": MARK + b"\rEHLO other",
    "long": MARK + b"x" * 1_000_000,
    "json": MARK + b'","forged":true,"x":"',
    "html and shell": MARK + b"<script>alert(1)</script>$(reboot)`reboot`",
}
_NAME_ENDS: Final = b"\r\n"


def _commands(name: bytes) -> list[bytes]:
    return [
        b"EHLO " + name + _NAME_ENDS,
        b"AUTH " + name + b" " + name + _NAME_ENDS,
        name + b" x" + _NAME_ENDS,
        b"MAIL FROM:<" + name + b"@a> SIZE=" + name + b" " + name + b"=" + name + _NAME_ENDS,
        b"RCPT TO:<" + name + b"@b> NOTIFY=" + name + _NAME_ENDS,
        b"HELO " + name + b"\n" + name + _NAME_ENDS,
        b"QUIT" + _NAME_ENDS,
    ]


def _hello(name: bytes) -> bytes:
    """A real ClientHello whose SNI and ALPN are that, as OpenSSL itself would not send it."""
    name = name[:60].ljust(60, b".")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["p" * 60])
    tls = context.wrap_bio(incoming, outgoing, server_hostname="s" * 60)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    assert hello.count(b"s" * 60) == 1
    assert hello.count(b"p" * 60) == 1
    return hello.replace(b"s" * 60, name).replace(b"p" * 60, name)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Said]:
    server = Server()

    def happening(server: Server, _: int) -> None:
        for name in NAMES.values():
            server.banner, server.text = b"220 " + name[:400], name[:400]
            converse(server.port, _commands(name))
            converse(server.port, [b"EHLO x\r\n", b"STARTTLS\r\n", _hello(name)])

    yield hear(tmp_path_factory.mktemp("names"), server, happening)
    server.close()


def _records(lines: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.split(b"\n")[:-1]]


def test_the_names_were_seen_at_all(said: Said) -> None:
    for lines in (said.records, said.read_jsonl):
        records = _records(lines)
        assert len(records) == 2 * len(NAMES)
        text = json.dumps(records)
        for place in ("banner", "helo", "transactions", "tls"):
            seen = [record for record in records if MARK.decode() in json.dumps(record[place])]
            assert len(seen) > len(NAMES) // 2, place
        assert text.count("StRaNgEr") > 5 * len(NAMES)


def test_live_and_from_a_file_they_are_the_same(said: Said) -> None:
    def names(lines: bytes) -> list[str]:
        places = ("banner", "helo", "transactions", "tls", "auth")
        return sorted(json.dumps([record[place] for place in places]) for record in _records(lines))

    without_times = [
        re.sub(r'"after_seconds": [\d.]+', "", text)
        for text in (*names(said.records), *names(said.read_jsonl))
    ]
    half = len(without_times) // 2
    assert sorted(without_times[:half]) == sorted(without_times[half:])


def test_a_record_is_one_line_of_ascii_or_printable_text(said: Said) -> None:
    for lines in (said.records, said.read_jsonl):
        text = lines.decode()
        assert text.splitlines() == text.split("\n")[:-1], "whoever cuts lines, also where Unicode says"
        assert not _obeyed_by_terminals(text.replace("\n", ""))
        assert max(map(len, text.split("\n"))) < 100_000, "a name of a megabyte is cut"


def test_no_metric_has_them_for_a_label(said: Said) -> None:
    for metrics in (said.metrics, said.read_metrics):
        assert MARK not in metrics
        assert b"forged" not in metrics
        assert not _obeyed_by_terminals(metrics.decode("ascii").replace("\n", ""))
        assert b'smtp_auth_total{mechanism="OTHER"' in metrics or b'mechanism="other"' in metrics


def test_no_log_line_has_a_character_that_a_terminal_obeys(said: Said) -> None:
    for log in (said.log, said.read_errors):
        assert not _obeyed_by_terminals(log.decode().replace("\n", ""))
        assert MARK not in log


def test_the_table_on_a_terminal_has_colours_of_its_own_and_nothing_else_that_a_terminal_obeys(
    said: Said,
) -> None:
    text = said.table.decode()
    assert "\x1b[" in text, "it was a terminal"
    without_colours = re.sub(r"\x1b\[[0-9;]*m", "", text)
    without_progress = re.sub(r"\x1b\[(\?25[lh]|\d*[AK])", "", without_colours)
    assert not _obeyed_by_terminals(without_progress.replace("\r\n", "").replace("\r", ""))
    assert MARK.decode() not in text


def _obeyed_by_terminals(text: str) -> list[str]:
    """Controls, bidirectional controls, separators: what `less` or a terminal would not show but do."""
    bidi = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return [
        ascii(char)
        for char in text
        if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs")
        or unicodedata.bidirectional(char) in bidi
        or char in "\u200e\u200f\u061c"
    ]
