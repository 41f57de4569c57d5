"""A command line as servers read it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.smtp.grammar import KNOWN_VERBS, UNKNOWN_VERB, line_limit_octets, parse_command, text
from tests.monitor.smtp.transcript import describe


@pytest.mark.parametrize(
    "line",
    [
        "MAIL FROM:<a@b>",
        "mail from:<a@b>",
        "MaIl FrOm:<a@b>",
        "MAIL FROM: <a@b>",
        "MAIL  FROM:<a@b>",
        "MAIL FROM :  <a@b>",
        "MAIL\tFROM:\t<a@b>",
        " MAIL FROM:<a@b> ",
        "MAIL FROM:a@b",
        "MAIL FROM: a@b",
        "MAIL FROM <a@b>",
        "MAIL FROM:<a@b",
        "MAIL FROM:<@x,@y:a@b>",
        "MAIL FROM:<@x.example:a@b>",
    ],
)
def test_a_sender_in_every_dress(line: str) -> None:
    assert describe(parse_command(line.encode())) == "MAIL <a@b>"


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("<>", ""),
        ('<"a>b@c"@d>', '"a>b@c"@d'),
        ('<"a b"@d>', '"a b"@d'),
        ('<"a\\"> b"@d>', '"a\\"> b"@d'),
        ('<a"b@d>', 'a"b@d'),
        ('"a b"@d', '"a b"@d'),
        ("<a@[192.0.2.1]>", "a@[192.0.2.1]"),
        ("<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
        ("<@x:a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
        ("<Postmaster>", "Postmaster"),
        ("<grå@müller.example>", "grå@müller.example"),
        ("<a=b@d>", "a=b@d"),
    ],
)
def test_addresses_are_kept_as_sent(path: str, address: str) -> None:
    command = parse_command(f"RCPT TO:{path} NOTIFY=NEVER".encode())
    assert command.path is not None
    assert command.path.address == address
    assert command.path.params == {"NOTIFY": "NEVER"}


def test_what_is_not_utf_8_is_kept_readable() -> None:
    command = parse_command(b"MAIL FROM:<gr\xe5\x00@b>")
    assert command.path is not None
    assert command.path.address == "gr\\xe5\x00@b"


@pytest.mark.parametrize(
    ("verb", "parameter", "keyword", "value"),
    [
        ("MAIL FROM", "SIZE=1234", "SIZE", "1234"),
        ("MAIL FROM", "size=1234", "SIZE", "1234"),
        ("MAIL FROM", "BODY=8BITMIME", "BODY", "8BITMIME"),
        ("MAIL FROM", "RET=HDRS", "RET", "HDRS"),
        ("MAIL FROM", "ENVID=QQ+2B1", "ENVID", "QQ+2B1"),
        ("RCPT TO", "NOTIFY=SUCCESS,DELAY", "NOTIFY", "SUCCESS,DELAY"),
        ("RCPT TO", "ORCPT=rfc822;x@y", "ORCPT", "rfc822;x@y"),
        ("MAIL FROM", "SMTPUTF8", "SMTPUTF8", None),
        ("MAIL FROM", "REQUIRETLS", "REQUIRETLS", None),
        ("MAIL FROM", "AUTH=<>", "AUTH", "<>"),
        ("MAIL FROM", "HOLDFOR=600", "HOLDFOR", "600"),
        ("MAIL FROM", "BY=120;R", "BY", "120;R"),
        ("MAIL FROM", "MT-PRIORITY=-3", "MT-PRIORITY", "-3"),
        ("RCPT TO", "RRVS=2014-04-03T23:01:00Z", "RRVS", "2014-04-03T23:01:00Z"),
        ("MAIL FROM", "PRDR", "PRDR", None),
        ("MAIL FROM", "X=", "X", ""),
        ("MAIL FROM", "X=a=b", "X", "a=b"),
    ],
)
def test_parameters(verb: str, parameter: str, keyword: str, value: str | None) -> None:
    command = parse_command(f"{verb}:<a@b> {parameter}  OTHER=1".encode())
    assert command.path is not None
    assert command.path.address == "a@b"
    assert command.path.params == {keyword: value, "OTHER": "1"}


def test_orcpt_is_no_recipient() -> None:
    assert describe(parse_command(b"RCPT TO:<b@c> ORCPT=rfc822;<x@y>")) == "RCPT <b@c> ORCPT=rfc822;<x@y>"


@pytest.mark.parametrize(
    "line", ["MAIL", "MAIL TO:<a@b>", "MAIL FROMAGE:<a@b>", "RCPT FROM:<a@b>", "MAIL: FROM:<a@b>", "RCPT x"]
)
def test_what_names_no_path_has_none(line: str) -> None:
    command = parse_command(line.encode())
    assert command.verb in ("MAIL", "RCPT")
    assert not command.names_a_path


@pytest.mark.parametrize(
    ("line", "described"),
    [
        ("EHLO client.example", "EHLO client.example"),
        ("ehlo [IPv6:::1] ", "EHLO [IPv6:::1]"),
        ("HELO", "HELO"),
        ("lhlo x", "LHLO x"),
        ("BDAT 86", "BDAT 86"),
        ("bdat 86 last", "BDAT 86 LAST"),
        ("BDAT 0 LAST ", "BDAT 0 LAST"),
        ("BDAT 18446744073709551616", "BDAT 18446744073709551616"),
        ("BDAT 100000000000000000000000", "BDAT"),
        ("BDAT", "BDAT"),
        ("BDAT -1 LAST", "BDAT"),
        ("BDAT 86LAST", "BDAT"),
        ("XEXCH50 924 2", "XEXCH50 924"),
        ("XEXCH50 some", "XEXCH50"),
        ("STARTTLS", "STARTTLS"),
        ("starttls  ", "STARTTLS"),
        ("STARTTLS now", "STARTTLS"),
        ("STARTTLS\r", "STARTTLS"),
        ("X-ANONYMOUSTLS", "X-ANONYMOUSTLS"),
        ("XXXXXXXX", "STARTTLS masked"),
        ("XXXXXXXA", "STARTTLS masked"),
        ("AUTH PLAIN AHVzZXIAczNjcmV0", "AUTH PLAIN"),
        ("auth cram-md5", "AUTH CRAM-MD5"),
        ("AUTH\tLOGIN", "AUTH LOGIN"),
        ("AUTH PLAIN\tAHVzZXIAczNjcmV0", "AUTH PLAIN"),
        ("AUTH", "AUTH OTHER"),
        ("AUTH AHVzZXIAczNjcmV0=", "AUTH OTHER"),
        ("AUTH a-password-longer-than-any-mechanism", "AUTH OTHER"),
        ("AUTH hunter2", "AUTH OTHER"),
        ("AUTH KERBEROS_V4", "AUTH KERBEROS_V4"),
        ("X-EXPS GSSAPI TlRMTVNTUAABAAAA", "X-EXPS GSSAPI"),
        ("QUIT now", "QUIT"),
        ("NOOP s3cret", "NOOP"),
        ("XCLIENT ADDR=192.0.2.1", "XCLIENT"),
        ("ETRN @example", "ETRN"),
        ("", UNKNOWN_VERB),
        ("s3cret", UNKNOWN_VERB),
        ("MAILFROM:<a@b>", UNKNOWN_VERB),
    ],
)
def test_other_commands(line: str, described: str) -> None:
    assert describe(parse_command(line.encode())) == described


@pytest.mark.parametrize(
    ("line", "described"),
    [
        ("MAIL FROM:<a@b> SI", "MAIL cut"),
        ("BDAT 8", "BDAT cut"),
        ("EHLO clie", "EHLO cut"),
        ("AUTH PLAIN AHVz", "AUTH PLAIN"),
        ("AUTH PLA", "AUTH"),
        ("STARTTLS ", "STARTTLS cut"),
        ("s3cret", UNKNOWN_VERB),
    ],
)
def test_of_a_cut_line_only_what_the_rest_cannot_change(line: str, described: str) -> None:
    assert describe(parse_command(line.encode(), whole=False)) == described


@given(st.binary(max_size=200), st.booleans())
def test_any_line_is_a_command_of_known_or_unknown_verb(line: bytes, whole: bool) -> None:
    assert parse_command(line, whole=whole).verb in KNOWN_VERBS | {UNKNOWN_VERB}


@given(
    st.sampled_from([b"MAIL FROM:<", b"RCPT TO:<", b"MAIL FROM:", b"RCPT TO"]),
    st.lists(st.sampled_from([b'"', b"\\", b">", b"<", b"@", b":", b" ", b"a", b"=", b",", b"\xff"])),
)
def test_odd_addresses_never_raise(start: bytes, rest: list[bytes]) -> None:
    parse_command(start + b"".join(rest))


@pytest.mark.parametrize("piece", [b'"', b'"\\', b"\\", b'"a"', b"<", b"@:", b"@a,", b" ", b"a="])
def test_no_address_takes_long(piece: bytes) -> None:
    """16 kB of what makes patterns backtrack; each would take minutes if it took more than linear time."""
    for start in (b"MAIL FROM:<", b"MAIL FROM:"):
        parse_command(start + piece * (16_384 // len(piece)))


def test_limits_of_lines() -> None:
    assert line_limit_octets("NOOP") == 512
    assert line_limit_octets("MAIL") == 1_512
    assert line_limit_octets("X-EXPS") == line_limit_octets("AUTH") == 12_288


@given(st.binary(max_size=50))
def test_text_is_always_encodable(raw: bytes) -> None:
    assert text(raw).encode() == raw or "\\x" in text(raw)
