"""What the programs in the kernel tell of a connection: of real OpenSSL, real sockets, a real kernel."""

import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from tests.probes.tls_tap.scripted import Line, TapAndServer, lines

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="probes in the kernel need root"),
]

EHLO = ("EHLO client.test", "250-mx.test\r\n250-PIPELINING\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE")
MAIL = ("MAIL FROM:<a@client.test> SIZE=1", "250 2.1.0 Ok")
RCPT = ("RCPT TO:<b@mx.test>", "250 2.1.5 Ok")
DATA = ("DATA", "354 End data with <CR><LF>.<CR><LF>")
QUIT = ("QUIT", "221 2.0.0 Bye")
BODY = b"Subject: lab\r\n\r\nMAIL FROM:<inside@body.test>\r\n..\r\n.x\r\n\n.\n" + b"A line of it.\r\n" * 40
MESSAGE = Line(BODY + b".\r\n", b"250 2.0.0 queued\r\n")
PIECES = (1, 2, 3, 5, 7, 64, 255, 256, 257, 4_096)


@pytest.fixture(scope="module")
def tapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TapAndServer]:
    made = TapAndServer(tmp_path_factory.mktemp("tap"))
    yield made
    made.close()


ORDINARY = [*lines(EHLO, MAIL, RCPT, ("rcpt to:<c@mx.test>", "550 No"), DATA), MESSAGE, *lines(QUIT)]
ORDINARY_TOLD = [
    "C: EHLO",
    "S: 250",
    "C: MAIL FROM:<a@client.test> SIZE=1",
    "S: 250",
    "C: RCPT TO:<b@mx.test>",
    "S: 250",
    "C: rcpt to:<c@mx.test>",
    "S: 550",
    "C: DATA",
    "S: 354",
    f"MESSAGE {len(BODY) + 3}",
    "S: 250",
    "C: QUIT",
    "S: 221",
]


def upper(transcript: list[str]) -> list[str]:
    return [line.upper() for line in transcript]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_ordinary_message_is_told_without_its_text(tapped: TapAndServer, version: ssl.TLSVersion) -> None:
    assert tapped.play(ORDINARY, version=version).spoken == ORDINARY_TOLD


@pytest.mark.parametrize("piece_bytes", PIECES)
def test_it_is_told_the_same_however_the_client_cuts_it(tapped: TapAndServer, piece_bytes: int) -> None:
    told = tapped.play(ORDINARY, piece_bytes=piece_bytes).spoken
    assert upper(told) == upper(ORDINARY_TOLD)  # a verb in pieces comes in capitals


@pytest.mark.parametrize("read_bytes", PIECES)
def test_it_is_told_the_same_however_the_server_reads_it(tapped: TapAndServer, read_bytes: int) -> None:
    assert upper(tapped.play(ORDINARY, read_bytes=read_bytes).spoken) == upper(ORDINARY_TOLD)


@pytest.mark.parametrize("write_bytes", PIECES)
def test_it_is_told_the_same_however_the_server_writes_it(tapped: TapAndServer, write_bytes: int) -> None:
    assert tapped.play(ORDINARY, write_bytes=write_bytes).spoken == ORDINARY_TOLD


SERVER_THAT_CALLS_SSL_READ: Final = """
use Net::SSLeay;
Net::SSLeay::initialize();
my $context = Net::SSLeay::CTX_new();
Net::SSLeay::set_cert_and_key($context, $ARGV[0], $ARGV[1]);
my $session = Net::SSLeay::new($context);
Net::SSLeay::set_fd($session, 0);
Net::SSLeay::accept($session);
while (Net::SSLeay::read($session)) {}
Net::SSLeay::free($session);
"""
"""Python's calls SSL_read_ex."""


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_that_the_client_has_gone_is_told_where_the_library_tells(
    tapped: TapAndServer, says_goodbye: bool
) -> None:
    made = tapped.certificate
    command = ["perl", "-e", SERVER_THAT_CALLS_SSL_READ, str(made.certificate), str(made.key)]
    # With TLS 1.3 there is something left to read: so TCP resets, which SSL_read does not tell from waiting.
    tapped.client_context.minimum_version = ssl.TLSVersion.TLSv1_2
    tapped.client_context.maximum_version = ssl.TLSVersion.TLSv1_2

    def serve() -> None:
        with tapped.accept() as connection:
            subprocess.run(command, stdin=connection.fileno(), check=True)

    server = threading.Thread(target=serve)
    server.start()
    with tapped.connect() as client:
        client.sendall(b"NOOP\r\n")
        if says_goodbye:
            client.unwrap()
    server.join()
    assert tapped.told().transcript == ["BEGUN", "C: NOOP", "CLOSED", "ENDED"]


def test_a_greeting_inside_tls_comes_first(tapped: TapAndServer) -> None:
    told = tapped.play(ORDINARY, banner=b"220-mx.test\r\n220 ESMTP\r\n").spoken
    assert told == ["S: 220", *ORDINARY_TOLD]


def test_pipelined_commands_are_told_one_by_one(tapped: TapAndServer) -> None:
    recipients = [f"RCPT TO:<user{number}@mx.test>\r\n" for number in range(200)]
    group = "MAIL FROM:<>\r\n" + "".join(recipients) + "DATA\r\n"
    replies = "250 Ok\r\n" * 201 + "354 Go on\r\n"
    told = tapped.play([Line(group.encode(), replies.encode()), MESSAGE, *lines(QUIT)]).spoken
    assert told[:202] == [
        "C: MAIL FROM:<>",
        *(f"C: RCPT TO:<user{number}@mx.test>" for number in range(200)),
        "C: DATA",
    ]
    assert told[202:] == [
        *["S: 250"] * 201,
        "S: 354",
        f"MESSAGE {len(BODY) + 3}",
        "S: 250",
        "C: QUIT",
        "S: 221",
    ]


LINES_OF_A_CALL = 2 + 33 * 8
"""STEPS_AT_ONCE of tap.c, and STEPS in as many turns as the kernel allows."""


@pytest.mark.parametrize("more", [0, 1])
def test_so_many_lines_of_one_call_are_told_and_one_more_makes_it_blind(
    tapped: TapAndServer, more: int
) -> None:
    count = LINES_OF_A_CALL + more
    recipients = Line(b"RCPT TO:<b@mx.test>\r\n" * count, b"250 Ok\r\n" * count)
    told = tapped.play([*lines(MAIL), recipients, *lines(QUIT)]).spoken[2:]
    assert told[:LINES_OF_A_CALL] == ["C: RCPT TO:<b@mx.test>"] * LINES_OF_A_CALL
    if more:
        assert told[LINES_OF_A_CALL:] == [f"LOST {len(recipients.sent) // count}"]
    else:
        assert told[LINES_OF_A_CALL:] == ["S: 250"] * count + ["C: QUIT", "S: 221"]


@pytest.mark.parametrize("piece_bytes", [1, 5, 300, 1 << 20])
def test_what_is_pipelined_behind_a_message_is_told(tapped: TapAndServer, piece_bytes: int) -> None:
    behind = Line(
        MESSAGE.sent + b"MAIL FROM:<2@client.test>\r\nRSET\r\n", b"250 queued\r\n250 Ok\r\n250 Ok\r\n"
    )
    told = tapped.play([*lines(MAIL, RCPT, DATA), behind, *lines(QUIT)], piece_bytes=piece_bytes).spoken
    assert told[6:] == [
        f"MESSAGE {len(BODY) + 3}",
        "C: MAIL FROM:<2@client.test>",
        "C: RSET",
        "S: 250",
        "S: 250",
        "S: 250",
        "C: QUIT",
        "S: 221",
    ]


@pytest.mark.parametrize(
    "body",
    [
        b".\r\n",
        b"\r\n.\r\n",
        b"..\r\n.\r\n",
        b"\r\n..\r\n.\r\n",
        b"a\r\n.\r.\r\n\r\n.\r\n",
        b"\n.\n\r\n.\n.\r\nx\r\n.\r\n",
        b"\r\r\n.\r\n",
        *(b"x" * before + b"\r\n.\r\n" for before in range(1, 17)),
        b"x" * 253 + b"\r\n.\r\n",
        b"x" * 254 + b"\r\n.\r\n",
        b"x" * 255 + b"\r\n.\r\n",
        b"x" * 256 + b"\r\n.\r\n",
        b"x" * 40_000 + b"\r\n.\r\n",
        b"a line\r\n" * 20_000 + b".\r\n",
    ],
)
@pytest.mark.parametrize("piece_bytes", [1, 256, 1 << 20])
def test_a_message_ends_where_it_ends(tapped: TapAndServer, body: bytes, piece_bytes: int) -> None:
    if piece_bytes == 1 and len(body) > 1_000:
        pytest.skip("takes too long")
    script = [*lines(MAIL, RCPT, DATA), Line(body, b"250 queued\r\n"), *lines(QUIT)]
    told = tapped.play(script, piece_bytes=piece_bytes).spoken
    assert told[6:] == [f"MESSAGE {len(body)}", "S: 250", "C: QUIT", "S: 221"]


@pytest.mark.parametrize("piece_bytes", [1, 4, 11, 1 << 20])
def test_chunks_are_told_by_their_size(tapped: TapAndServer, piece_bytes: int) -> None:
    text = b"Subject: x\r\n\r\nQUIT\r\n.\r\nRCPT TO:<c@mx.test>\r\n"
    script = [
        *lines(MAIL, RCPT),
        Line(b"BDAT %d\r\n" % len(text) + text, b"250 Ok\r\n"),
        Line(b"bdat  300 LAST\r\n" + b"." * 300, b"250 queued\r\n"),
        *lines(MAIL, RCPT),
        Line(b"BDAT 0 LAST\r\n", b"250 queued\r\n"),
        *lines(QUIT),
    ]
    told = upper(tapped.play(script, piece_bytes=piece_bytes).spoken)
    assert told[4:8] == [f"C: BDAT {len(text)}", f"CHUNK {len(text)}", "S: 250", "C: BDAT  300 LAST"]
    assert told[8:10] == ["CHUNK 300", "S: 250"]
    assert told[14:] == ["C: BDAT 0 LAST", "S: 250", "C: QUIT", "S: 221"]


def test_a_chunk_larger_than_any_number_has_no_end(tapped: TapAndServer) -> None:
    """Else what is left of the number would be its size, and the rest of the chunk be commands."""
    size = (1 << 64) + 2
    script = [
        *lines(MAIL, RCPT),
        Line(b"BDAT %d\r\nab" % size, b"552 No\r\n"),
        *lines(("MAIL FROM:<inside@body.test>", "500 What?")),
    ]
    assert tapped.play(script).spoken[4:] == [f"C: BDAT {size}", "S: 552", "S: 500"]


SECRETS = ("AHVzZXIAc2VzYW1l", "dXNlcg==", "c2VzYW1l", "QUITE-A-SECRET", "MAIL FROM:<secret@client.test>")


@pytest.mark.parametrize("piece_bytes", [1, 2, 9, 12, 1 << 20])
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (lines(("AUTH PLAIN AHVzZXIAc2VzYW1l", "235 Ok")), ["C: AUTH PLAIN", "S: 235"]),
        (lines(("auth  plain  AHVzZXIAc2VzYW1l", "535 No")), ["C: AUTH  PLAIN", "S: 535"]),
        (
            lines(
                ("AUTH LOGIN", "334 VXNlcm5hbWU6"), ("dXNlcg==", "334 UGFzc3dvcmQ6"), ("c2VzYW1l", "235 Ok")
            ),
            ["C: AUTH LOGIN", "S: 334", "S: 334", "S: 235"],
        ),
        # A secret that looks like a command, twice.
        (
            lines(("AUTH PLAIN", "334"), ("MAIL FROM:<secret@client.test>", "535 No")),
            ["C: AUTH PLAIN", "S: 334", "S: 535"],
        ),
        (lines(("AUTH", "501 What?")), ["C: AUTH", "S: 501"]),
        # All in one, for a server that reads it so: what stood behind AUTH was not looked at.
        (
            [Line(b"AUTH LOGIN\r\ndXNlcg==\r\nc2VzYW1l\r\n", b"334 a\r\n334 b\r\n235 Ok\r\n")],
            ["C: AUTH LOGIN", "S: 334", "S: 334", "S: 235"],
        ),
        # In the wrong place.
        (lines(("QUITE-A-SECRET c2VzYW1l", "500 What?")), ["C: ?", "S: 500"]),
        (lines(("EHLO c2VzYW1l", "250 mx.test")), ["C: EHLO", "S: 250"]),
        (lines(("c2VzYW1l", "500 5.5.2 c2VzYW1l is no command")), ["C: ?", "S: 500"]),
    ],
)
def test_secrets_do_not_leave_the_kernel(
    tapped: TapAndServer, script: list[Line], expected: list[str], piece_bytes: int
) -> None:
    told = tapped.play([*script, *lines(MAIL, QUIT)], piece_bytes=piece_bytes)
    assert upper(told.spoken[: len(expected)]) == upper(expected)
    everything = b" ".join(event.text for event in told.events)
    assert not [secret for secret in SECRETS if secret.encode() in everything]
    assert told.spoken[-4:] == ["C: MAIL FROM:<a@client.test> SIZE=1", "S: 250", "C: QUIT", "S: 221"]


def test_no_window_keeps_what_was_looked_at(tapped: TapAndServer) -> None:
    kept: list[bytes] = []
    secret = Line(
        b"AUTH PLAIN AHVzZXIAc2VzYW1l\r\n", b"235 Ok\r\n", lambda: kept.extend(tapped.in_map("threads"))
    )
    tapped.play([secret, *lines(QUIT)])
    assert kept
    assert b"c2VzYW1l" not in b"".join(kept)


def test_a_command_behind_an_auth_that_was_not_awaited_is_lost_and_told_so(tapped: TapAndServer) -> None:
    script = [Line(b"AUTH PLAIN AHVzZXIAc2VzYW1l\r\nRSET\r\n", b"535 No\r\n250 Ok\r\n"), *lines(QUIT)]
    assert tapped.play(script).spoken == [
        "C: AUTH PLAIN",
        "S: 535",
        "LOST 6",
        "LOST 0",
        "S: 250",
        "C: QUIT",
        "S: 221",
    ]


@pytest.mark.parametrize("piece_bytes", [1, 1 << 20])
def test_a_message_that_the_server_did_not_await_makes_it_blind(
    tapped: TapAndServer, piece_bytes: int
) -> None:
    blind = Line(b"DATA\r\n" + BODY + b".\r\n", b"354 Go on\r\n250 queued\r\n")
    told = tapped.play([*lines(MAIL, RCPT), blind, *lines(QUIT)], piece_bytes=piece_bytes)
    assert told.spoken[4:] == ["C: DATA", "S: 354", f"LOST {len(BODY) + 3}"]


def test_a_reply_within_a_message_makes_it_blind(tapped: TapAndServer) -> None:
    script = [*lines(MAIL, RCPT, DATA), Line(BODY, b"421 Too slow\r\n"), *lines(MAIL, QUIT)]
    assert tapped.play(script).spoken[6:] == ["S: 421", f"LOST {len(BODY)}"]


def test_a_reply_that_nobody_asked_for_tells_of_a_command_that_was_not_seen(tapped: TapAndServer) -> None:
    script = [*lines(MAIL), Line(b"RCPT TO:<b@mx.test>\r\n", b"250 Ok\r\n250 Ok\r\n"), *lines(QUIT)]
    told = tapped.play(script).spoken
    assert told[2:6] == ["C: RCPT TO:<b@mx.test>", "S: 250", "LOST 0", "S: 250"]
    unfinished = [*lines(MAIL), Line(b"RCPT TO:<b@", b"250 Ok\r\n")]
    assert tapped.play(unfinished).spoken[2:] == ["C: RCPT TO:<b@...", "S: 250"]
    closing = [*lines(MAIL), Line(b"", b"421 Time is up\r\n")]
    assert tapped.play(closing, banner=b"220 mx.test\r\n").spoken[2:] == ["S: 250", "S: 421"]


def test_tls_within_tls_makes_it_blind(tapped: TapAndServer) -> None:
    script = lines(("STARTTLS", "454 Not twice"), MAIL, ("STARTTLS", "220 Twice"), RCPT, QUIT)
    assert tapped.play(script).spoken == [
        "C: ?",
        "S: 454",
        "C: MAIL FROM:<a@client.test> SIZE=1",
        "S: 250",
        "C: ?",
        "S: 220",
        "LOST 0",
    ]
