"""Postfix's mail log as a witness: one truth for each session that the log saw end.

Needs `smtpd_client_port_logging`, which makes the client's port part of every line, `smtpd_tls_loglevel = 1`,
and long queue names, which are never used twice. The counts at a session's end are `name=accepted/all`, or
`name=all` where all were accepted; they hold what came inside TLS too, so they are facts of clear sessions
only.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tests.lab.truth import COUNTED_COMMANDS, NO_TLS, Endpoint, InsideTruth, MessageTruth, SessionTruth

_LINE: Final = re.compile(
    r"^\w+ +\d+ [\d:]+ \S+ postfix/(?:(?P<face>\w+)/)?(?P<program>[\w-]+)\[\d+\]: (?P<text>.*)$"
)
_PEER: Final = r"\S*\[(?P<ip>[0-9a-f.:]+)\]:(?P<port>\d+)"
_CONNECTED: Final = re.compile(rf"^connect from {_PEER}$")
_TLS: Final = re.compile(
    rf"^\w+ TLS connection established from {_PEER}(?: to (?P<sni>\S+))?: "
    r"(?P<version>\S+) with cipher (?P<cipher>\S+)"
)
_TLS_FAILED: Final = re.compile(rf"^SSL_accept error from {_PEER}")
_QUEUED: Final = re.compile(rf"^(?P<queue>\w+): client={_PEER}")
_REFUSED: Final = re.compile(rf"^\w+: reject: RCPT from {_PEER}: (?P<code>\d{{3}}) .* to=<(?P<to>[^>]*)>")
# From Postfix 3.10 on, the queue's name is before it.
_BROKEN: Final = re.compile(
    rf"^(?:\w+: )?(?P<how>lost connection|timeout|too many errors) after .* from {_PEER}$"
)
_ENDED: Final = re.compile(rf"^disconnect from {_PEER}(?P<counts>(?: \S+=\S+)*)$")
_SENDER: Final = re.compile(r"^(?P<queue>\w+): from=<(?P<address>[^>]*)>, size=")
_RECIPIENT: Final = re.compile(
    r"^(?P<queue>\w+): to=<(?P<address>[^>]*)>,(?: orig_to=<(?P<original>[^>]*)>,)?"
)


@dataclass(slots=True)
class _Session:
    face: str
    client: Endpoint
    tls: re.Match[str] | None = None
    mail_before_tls: bool = False
    tls_failed: bool = False
    queues: list[str] = field(default_factory=list)
    refused: Counter[tuple[str, int]] = field(default_factory=Counter)
    broken: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)


def read_postfix_log(log: str, listeners: Mapping[str, tuple[Endpoint, Endpoint]]) -> list[SessionTruth]:
    """`listeners`: where each face listens, by its name: IPv4, IPv6."""
    open_sessions: dict[tuple[str, str, str], _Session] = {}
    ended: list[_Session] = []
    senders: dict[str, str] = {}
    recipients: dict[str, set[str]] = {}
    for line in log.splitlines():
        parsed = _LINE.match(line)
        if parsed is None:
            continue
        text = parsed["text"]
        if parsed["program"] == "smtpd":
            _read_server_line(parsed["face"], text, open_sessions, ended)
        elif found := _SENDER.match(text):
            senders[found["queue"]] = found["address"]
        elif found := _RECIPIENT.match(text):
            recipients.setdefault(found["queue"], set()).add(found["original"] or found["address"])
    return [_truth(session, listeners[session.face], senders, recipients) for session in ended]


def _read_server_line(
    face: str, text: str, open_sessions: dict[tuple[str, str, str], _Session], ended: list[_Session]
) -> None:
    if found := _CONNECTED.match(text):
        client = found["ip"], int(found["port"])
        open_sessions[face, found["ip"], found["port"]] = _Session(face, client)
        return
    for pattern in (_TLS, _TLS_FAILED, _QUEUED, _REFUSED, _BROKEN, _ENDED):
        if found := pattern.match(text):
            break
    else:
        return
    session = open_sessions[face, found["ip"], found["port"]]
    if pattern is _TLS:
        session.tls = found
        session.mail_before_tls = bool(session.queues or session.refused)
    elif pattern is _TLS_FAILED:
        session.tls_failed = True
    elif pattern is _QUEUED:
        session.queues.append(found["queue"])
    elif pattern is _REFUSED:
        session.refused[found["to"], int(found["code"])] += 1
    elif pattern is _BROKEN:
        session.broken = found["how"]
    else:
        for count in found["counts"].split():
            name, _, numbers = count.partition("=")
            accepted, _, all_of_them = numbers.partition("/")
            session.accepted[name] = int(accepted)
            session.counts[name] = int(all_of_them or accepted)
        ended.append(open_sessions.pop((face, found["ip"], found["port"])))


def _truth(
    session: _Session,
    listeners: tuple[Endpoint, Endpoint],
    senders: Mapping[str, str],
    recipients: Mapping[str, set[str]],
) -> SessionTruth:
    known = SessionTruth(
        witness=f"postfix log ({session.face})",
        client=session.client,
        server=listeners[":" in session.client[0]],
    )
    messages = tuple(
        MessageTruth(senders[queue], frozenset(recipients[queue]))
        for queue in session.queues
        if queue in senders  # else the message was begun and never ended
    )
    if session.tls is not None:
        # Which of them came before TLS, the log does not say.
        inside = InsideTruth(messages=messages, refused_recipients=session.refused)
        return replace(
            known,
            inside=inside if not session.mail_before_tls else None,
            channel="starttls" if session.counts["starttls"] else "implicit_tls",
            envelope="partial" if session.mail_before_tls else "hidden",
            tls_version=session.tls["version"],
            tls_cipher=session.tls["cipher"],
            tls_sni=session.tls["sni"],
        )
    in_clear = not session.tls_failed
    return replace(
        known,
        channel="cleartext" if in_clear else None,
        envelope="visible" if session.accepted["mail"] else None,
        tls_version=NO_TLS if in_clear else None,
        starttls_outcome=None if in_clear else frozenset({"failed", "abandoned"}),
        messages=messages,
        refused_recipients=session.refused,
        commands=Counter({name: session.counts[name] for name in COUNTED_COMMANDS}),
        # After a failed handshake both sides close at once.
        ended=_end(session) if in_clear else None,
    )


def _end(session: _Session) -> frozenset[str]:
    if session.counts["quit"]:
        return frozenset({"quit"})
    if session.broken in ("timeout", "too many errors"):
        return frozenset({"server_closed"})
    return frozenset({"client_closed", "reset"})
