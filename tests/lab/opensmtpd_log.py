"""OpenSMTPD's log as a witness: one truth for each session that the log saw end, in the order of their start.

The log names the client's address and not its port (`ANY_PORT`), nor the address it came to.
"""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from tests.lab.truth import ANY_PORT, NO_TLS, Endpoint, InsideTruth, MessageTruth, SessionTruth

_LINE: Final = re.compile(r"^(?P<session>[0-9a-f]{16}) smtp (?P<event>\S+) ?(?P<text>.*)$")
_ADDRESS: Final = re.compile(r"^address=\[?(?P<ip>[0-9a-f.:]+)")
_ENVELOPE: Final = re.compile(
    r"evpid=(?P<message>[0-9a-f]{8})\w+ from=<(?P<sender>[^>]*)> to=<(?P<to>[^>]*)>"
)
# Debian 12's OpenSMTPD can't do TLS with its OpenSSL.
_TLS: Final = re.compile(r"^ciphers=(?P<version>[^:]+):(?P<cipher>[^:]+):")
_REFUSED: Final = re.compile(r'^command="RCPT TO:<(?P<to>[^>]*)>\S*" result="(?P<code>\d{3})')


@dataclass(slots=True)
class _Session:
    ip: str
    senders: dict[str, str] = field(default_factory=dict)
    recipients: dict[str, set[str]] = field(default_factory=dict)
    refused: Counter[tuple[str, int]] = field(default_factory=Counter)
    tls: re.Match[str] | None = None
    reason: str | None = None


def read_opensmtpd_log(log: str, listeners: tuple[Endpoint, Endpoint]) -> list[SessionTruth]:
    """`listeners`: where it listens: IPv4, IPv6."""
    sessions: dict[str, _Session] = {}
    for line in log.splitlines():
        if not (parsed := _LINE.match(line)):
            continue
        event, text = parsed["event"], parsed["text"]
        if event == "connected" and (found := _ADDRESS.match(text)):
            sessions[parsed["session"]] = _Session(found["ip"])
        session = sessions[parsed["session"]]
        if event == "envelope" and (found := _ENVELOPE.match(text)):
            session.senders[found["message"]] = found["sender"]
            session.recipients.setdefault(found["message"], set()).add(found["to"])
        elif event == "failed-command" and (found := _REFUSED.match(text)):
            session.refused[found["to"], int(found["code"])] += 1
        elif event == "tls":
            session.tls = _TLS.match(text)
        elif event == "disconnected":
            session.reason = text.removeprefix("reason=").strip('"')
    ended = (session for session in sessions.values() if session.reason is not None)
    return [_truth(session, listeners[":" in session.ip]) for session in ended]


def _truth(session: _Session, server: Endpoint) -> SessionTruth:
    known = SessionTruth(witness="opensmtpd log", client=(session.ip, ANY_PORT), server=server)
    reason = session.reason or ""
    messages = tuple(
        MessageTruth(sender, frozenset(session.recipients[message]))
        for message, sender in session.senders.items()
    )
    if "SSL" in reason:
        return replace(known, envelope="none", starttls_outcome=frozenset({"failed"}), messages=messages)
    if session.tls is not None:
        return replace(
            known,
            channel="starttls",
            envelope="hidden",
            tls_version=session.tls["version"],
            tls_cipher=session.tls["cipher"],
            inside=InsideTruth(messages=messages, refused_recipients=session.refused),
        )
    return replace(
        known,
        channel="cleartext",
        tls_version=NO_TLS,
        messages=messages,
        refused_recipients=session.refused,
        ended=frozenset({"quit"}) if reason == "quit" else frozenset({"client_closed", "reset"}),
    )
