"""Exim's main log as a witness: one truth for each session that the log saw end.

Needs the log selectors that `exim.py` sets: ports and interfaces, connections, recipients, TLS.
"""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from tests.lab.truth import NO_TLS, Endpoint, MessageTruth, SessionTruth

_ENDS: Final = r"\[(?P<ip>[0-9a-f.:]+)\]:(?P<port>\d+) I=\[(?P<own_ip>[0-9a-f.:]+)\]:(?P<own_port>\d+)"
_CONNECTED: Final = re.compile(rf"SMTP connection from {_ENDS} \(TCP/IP connection count")
_MESSAGE: Final = re.compile(
    rf" <= (?P<sender>\S+) .*?{_ENDS} P=\S+ (?:X=(?P<version>[^:]+):(?P<cipher>\S+?):\d+ )?"
    r".* from <[^>]*> for (?P<recipients>.+)$"
)
_SNI: Final = re.compile(r' SNI="?(?P<sni>[^" ]+)')
_REFUSED: Final = re.compile(rf"{_ENDS} .*?(?P<temporary>temporarily )?rejected RCPT <(?P<to>[^>]*)>")
_TLS_ERROR: Final = re.compile(rf"TLS error on connection from .*?{_ENDS}")
# From Exim 4.98 on, with how long it was.
_ENDED: Final = re.compile(rf"SMTP connection from .*?{_ENDS} (?:D=\S+ )?(?P<how>closed by QUIT|lost|closed)")

# How OpenSSL calls what GnuTLS describes; only TLS 1.3 ciphers can be told from it alone.
_CIPHERS: Final = {
    "AES_256_GCM": "TLS_AES_256_GCM_SHA384",
    "AES_128_GCM": "TLS_AES_128_GCM_SHA256",
    "CHACHA20_POLY1305": "TLS_CHACHA20_POLY1305_SHA256",
}
# What `defer` in an access list answers.
_DEFERRED: Final = 451
_DENIED: Final = 550


@dataclass(slots=True)
class _Session:
    client: Endpoint
    server: Endpoint
    messages: list[MessageTruth] = field(default_factory=list)
    refused: Counter[tuple[str, int]] = field(default_factory=Counter)
    tls: re.Match[str] | None = None
    sni: str = ""
    tls_error: bool = False


def read_exim_log(log: str) -> list[SessionTruth]:
    open_sessions: dict[tuple[Endpoint, Endpoint], _Session] = {}
    ended: list[SessionTruth] = []
    for line in log.splitlines():
        for pattern in (_CONNECTED, _MESSAGE, _TLS_ERROR, _REFUSED, _ENDED):
            if found := pattern.search(line):
                break
        else:
            continue
        client = found["ip"], int(found["port"])
        server = found["own_ip"], int(found["own_port"])
        if pattern is _CONNECTED:
            open_sessions[client, server] = _Session(client, server)
            continue
        session = open_sessions.get((client, server))
        if session is None:  # "closed" may be said twice
            continue
        if pattern is _MESSAGE:
            sender = "" if found["sender"] == "<>" else found["sender"]
            session.messages.append(MessageTruth(sender, frozenset(found["recipients"].split())))
            if found["version"]:
                session.tls = found
                session.sni = named["sni"] if (named := _SNI.search(line)) else ""
        elif pattern is _REFUSED:
            session.refused[found["to"], _DEFERRED if found["temporary"] else _DENIED] += 1
        elif pattern is _TLS_ERROR:
            session.tls_error = True
        else:
            ended.append(_truth(open_sessions.pop((client, server)), found["how"]))
    return ended


def _truth(session: _Session, how: str) -> SessionTruth:
    known = SessionTruth(witness="exim log", client=session.client, server=session.server)
    if session.tls is not None:
        tls_13 = session.tls["version"] == "TLS1.3"
        return replace(
            known,
            channel="implicit_tls" if session.server[1] == 465 else "starttls",
            envelope="hidden",
            tls_version=session.tls["version"].replace("TLS", "TLSv"),
            tls_cipher=_CIPHERS[session.tls["cipher"].rpartition("__")[2]] if tls_13 else None,
            tls_sni=session.sni,
        )
    if session.tls_error:
        return replace(
            known, envelope="none", starttls_outcome=frozenset({"failed", "abandoned"}), messages=()
        )
    if not session.messages:
        # Without a message the log doesn't say whether there was TLS.
        return known
    return replace(
        known,
        channel="cleartext",
        envelope="visible",
        tls_version=NO_TLS,
        messages=tuple(session.messages),
        refused_recipients=session.refused,
        ended=frozenset({"quit"}) if how == "closed by QUIT" else frozenset({"client_closed", "reset"}),
    )
