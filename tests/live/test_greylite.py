"""greylite itself, and what its model says of the same sessions (monitor/greylisters/greylite.py).

Each session is driven twice. When it is said to the server itself, `smtp-horizon watch` looks on, and its
record has what the model says. When it is said through greylite, with an empty database, it shows what the
program does: whether a row of the database has sender and recipient, which lines greylite has read, and
whether the client still gets the replies that it is owed.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from monitor.greylisters.greylite import address_in
from tests.lab import greylite, scripted_server
from tests.lab.certificates import make_certificate
from tests.lab.greylite import Left
from tests.lab.greylite_sessions import KINDS, Kind, Played, play
from tests.lab.network import Network, client_address, server_address
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.sendmail import prepare_sendmail
from tests.lab.tcpserver import TcpServer
from tests.lab.watch import Watch

MISSING: Final = greylite.missing()
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and capturing need root"),
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
]

# By whether sendmail is asked or the script: the server itself, and greylite before it.
DIRECT: Final = {False: (server_address(1), 25), True: (server_address(3), 25)}
THROUGH: Final = {False: (server_address(2), 25), True: (server_address(4), 25)}


# Between what a program takes to answer or close, and what greylite waits (40 s in its source).
LONG_SECONDS: Final = 1.5


class Finding(NamedTuple):
    reach: str
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    kind: Kind
    direct: Played
    through: Played
    left: Left
    record: dict[str, Any]

    @property
    def model(self) -> Finding:
        said = self.record["greylisters"]["greylite"]
        return Finding(said["reach"], said["by"])

    @property
    def program(self) -> Finding:
        if self.left.pending:
            return Finding("decided")
        if self.left.stepped_aside:
            return Finding("bypassed", self.left.lines_read[-1].split()[0].lower())
        if self.through.owed and not self.direct.owed and (self._waited_in_vain or self.left.cut_off):
            return Finding("stalled")
        return Finding("no_envelope")

    @property
    def _waited_in_vain(self) -> bool:
        return self.through.waited_seconds > LONG_SECONDS


@dataclass(frozen=True, slots=True)
class Day:
    sessions: list[Session]
    retries: list[Played]
    """The first kind twice more, and then one that it would hold up."""
    verified_after: list[bool]
    """Whether the client's address was, after each of the three."""


@pytest.fixture(scope="module")
def day() -> Iterator[Day]:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with Network(addresses=len(KINDS)) as network:
        yield live_through(network)


def live_through(network: Network) -> Day:
    host, folder = network.server, network.folder
    scripts, databases = folder / "scripts", folder / "databases"
    scripts.mkdir()
    databases.mkdir()
    certificate = make_certificate(scripts)
    sendmail = prepare_sendmail(root := folder / "sendmail")
    scripted: list[str | Path] = [sys.executable, "-I", "-S", scripted_server.__file__, scripts]
    clients = {kind.name: client_address(number) for number, kind in enumerate(KINDS, 1)}
    files = {name: greylite.make_database(databases, client) for name, client in clients.items()}
    for kind in KINDS:
        tls = [str(certificate.certificate), str(certificate.key)] if kind.tls_server else None
        script = {"banner": kind.banner, "replies": kind.replies, "tls": tls}
        (scripts / clients[kind.name]).write_text(json.dumps(script))
    before_script = greylite.wrapped(databases, scripted)
    before_sendmail = greylite.wrapped(databases, sendmail)
    with (
        TcpServer(host, folder / "direct", DIRECT[False], scripted),
        TcpServer(host, folder / "direct-sendmail", DIRECT[True], sendmail, root=root),
        TcpServer(host, folder / "through", THROUGH[False], before_script) as wrapped,
        TcpServer(
            host, folder / "sendmail-through", THROUGH[True], before_sendmail, root=root
        ) as wrapped_sendmail,
        network.client.threads(16) as threads,
    ):
        servers = {False: wrapped, True: wrapped_sendmail}
        with Watch(host, folder) as watch:
            direct = list(
                threads.map(lambda kind: play(kind, DIRECT[kind.sendmail], clients[kind.name]), KINDS)
            )
            watch.await_silence()
            watch.stop()
        through = list(
            threads.map(lambda kind: play(kind, THROUGH[kind.sendmail], clients[kind.name]), KINDS)
        )
        records = {(record["client"]["ip"], record["client"]["port"]): record for record in watch.records()}
        sessions = [
            Session(
                kind,
                played,
                played_through,
                Left.of(servers[kind.sendmail].log_of(played_through.client), files[kind.name]),
                records[played.client],
            )
            for kind, played, played_through in zip(KINDS, direct, through, strict=True)
        ]
        first, held_up = KINDS[0], next(kind for kind in KINDS if kind.name == "quoted sender")
        client, file = clients[first.name], files[first.name]
        retries, verified_after = [], []
        for kind in (first, first, held_up):
            retries.append(threads.submit(play, kind, THROUGH[False], client).result())
            wrapped.await_silence()
            verified_after.append(greylite.is_verified(file, client))
        return Day(sessions, retries, verified_after)


@dataclass(frozen=True, slots=True)
class Known:
    """Where the model says otherwise than the program does."""

    model: Finding
    program: Finding
    why: str


DECIDED: Final = Finding("decided")
STALLED: Final = Finding("stalled")
UNKNOWN: Final = Finding("unknown")
NO_ENVELOPE: Final = Finding("no_envelope")
BYPASSED_BY_DATA: Final = Finding("bypassed", "data")
BLIND: Final = Finding("blind", "implicit_tls")

_NAMED_OTHERWISE: Final = "it holds up what it can't read; the model says that there was nothing to read"
_DID_NOT_WAIT: Final = "it keeps a reply back, and reads on where the client has sent more without waiting"
_NOT_KEPT: Final = "it reads on in an AUTH exchange, of which we keep no line that the model could look at"
_BLANKS: Final = "it wants verbs at the line's beginning, and a blank behind AUTH; servers are not so strict"
_NO_CHUNK: Final = "a server that doesn't know BDAT does not wait for the chunk"

KNOWN: Final = {
    "TLS from the first byte": Known(BLIND, STALLED, _NAMED_OTHERWISE),
    "TLS from the first byte, where it begins in clear": Known(BLIND, STALLED, _NAMED_OTHERWISE),
    "sendmail: TLS from the first byte": Known(BLIND, STALLED, _NAMED_OTHERWISE),
    "pipelined, sender not readable": Known(STALLED, DECIDED, _DID_NOT_WAIT),
    "pipelined, first recipient not readable": Known(STALLED, DECIDED, _DID_NOT_WAIT),
    "pipelined, only recipient not readable": Known(STALLED, BYPASSED_BY_DATA, _DID_NOT_WAIT),
    "pipelined, 550 in two lines, then 250 and 354": Known(STALLED, BYPASSED_BY_DATA, _DID_NOT_WAIT),
    "STARTTLS behind a blank": Known(Finding("bypassed", "starttls"), DECIDED, _BLANKS),
    "AUTH and a tab": Known(Finding("bypassed", "auth"), DECIDED, _BLANKS),
    "BDAT before RCPT, unknown to the server": Known(STALLED, DECIDED, _NO_CHUNK),
    "bare AUTH 334": Known(UNKNOWN, DECIDED, _NOT_KEPT),
    "X-EXPS 334": Known(UNKNOWN, DECIDED, _NOT_KEPT),
}


def test_the_model_says_of_each_session_what_the_program_does(day: Day) -> None:
    complaints = []
    for session in day.sessions:
        known = KNOWN.get(session.kind.name)
        expected = (known.model, known.program) if known else (session.program, session.program)
        if (session.model, session.program) != expected:
            complaints.append(
                f"{session.kind.name}: model {session.model}, program {session.program}: {session.direct}, "
                f"{session.through}, {session.left}"
            )
    assert not complaints, "\n".join(complaints)


def test_every_result_came_about(day: Day) -> None:
    assert len(day.sessions) == len(KINDS) == len({kind.name for kind in KINDS})
    found = {session.program for session in day.sessions}
    bypassed = {Finding("bypassed", by) for by in ("starttls", "auth", "data")}
    assert found == {DECIDED, STALLED, NO_ENVELOPE, *bypassed}
    assert KNOWN.keys() <= {kind.name for kind in KINDS}


def test_the_direct_sessions_got_all_their_replies(day: Day) -> None:
    owed = {session.kind.name for session in day.sessions if session.direct.owed}
    assert owed == {"QUIT refused"}  # by a server that is gone


def test_a_session_that_is_passed_on_or_has_no_envelope_gets_the_server_s_own_replies(day: Day) -> None:
    for session in day.sessions:
        if session.program.reach in ("bypassed", "no_envelope") and not session.through.owed:
            assert session.through.codes == session.direct.codes, session.kind.name


def test_a_first_attempt_is_refused_where_the_server_accepts_its_recipient(day: Day) -> None:
    """Unless the refusal never leaves: greylite closes with the client's next commands unread."""
    for session in day.sessions:
        if session.program == DECIDED and "pipelined" not in session.kind.name:
            assert session.through.codes[-1] in (451, 452), session.kind.name
            at = len(session.through.codes) - 1
            assert session.through.codes[:at] == session.direct.codes[:at], session.kind.name


def test_the_program_keys_on_the_addresses_that_the_model_takes_from_the_lines(day: Day) -> None:
    for session in day.sessions:
        if session.left.pending and "MAIL" not in session.kind.replies:
            ((sender, recipient),) = session.left.pending
            mail = [line for line in session.left.lines_read if line.lower().startswith("mail")]
            taken = address_in(mail[-1].encode("latin-1")) if mail else b""
            assert sender.encode("latin-1") == (taken or b""), session.kind.name
            assert recipient.encode("latin-1") == address_in(session.left.lines_read[-1].encode("latin-1"))


def test_the_second_attempt_passes_and_from_then_on_it_reads_nothing_of_that_client(day: Day) -> None:
    first = day.sessions[0].direct.codes
    assert [played.codes for played in day.retries] == [first, first, (220, 250, 250, 250)]
    assert day.verified_after == [True, True, True]
