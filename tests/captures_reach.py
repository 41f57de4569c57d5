"""The truth beside a capture -> what each greylister could have done with its sessions.

Reads only what the drivers and servers said: the client's lines in their order, the codes of their replies,
and whether TLS was on. An oracle of its own: nothing here asks the code that it is held against.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.capture_truth import CAPTURES

Json = dict[str, Any]
Oracle = Callable[[Json, str], str]
"""From a session's truth, and where TLS ends."""

_ADDRESS: Final = re.compile(r"[-&*+./0-9=?a-zA-Z^_{}~]+@([-a-zA-Z0-9_]+\.)*[a-zA-Z0-9]+")
_MAIL: Final = re.compile(r"mail\s+from:", re.IGNORECASE)
_RCPT: Final = re.compile(r"rcpt\s+to:", re.IGNORECASE)
_PRINTED_IN_SHORT: Final = re.compile(r"\.\.\.\[(\d+) bytes\]\Z")
_LINE_END_OCTETS: Final = 2
_BUFFER_OCTETS: Final = 1_023
_NAME_OCTETS: Final = 512


def sessions_with_commands(name: str) -> Iterator[Json]:
    """The sessions of which the truth has every command and its reply."""
    path = CAPTURES / f"{name}.truth.json"
    if path.exists():
        sessions = json.loads(path.read_text())["sessions"]
    else:
        sessions = map(json.loads, (CAPTURES / f"{name}.truth.jsonl").read_text().splitlines())
    for session in sessions:
        if session.get("tcp") == "established" and "commands" in session:
            yield session


def greylite(session: Json, tls_ends: str) -> str:
    if _implicit(session):
        return "unknown by implicit_tls" if tls_ends == "proxy" else "blind by implicit_tls"
    if (session.get("banner") or "2")[0] in "45":
        return "no_envelope"
    for line, code, _ in _in_clear(session):
        found = _greylite_at(line, code)
        if found == "bypassed by starttls" and tls_ends == "proxy":
            return "unknown by starttls"
        if found is not None:
            return found
    return _nothing_found(session)


def _greylite_at(line: str, code: int | None) -> str | None:
    octets = _octets(line)
    if octets + _LINE_END_OCTETS > _BUFFER_OCTETS or "\0" in line:
        return "stalled"
    verb, _, argument = line.partition(" ")
    verb = verb.upper()
    if verb == "BDAT" and argument.partition(" ")[0].isdigit():
        return "stalled"
    if code is None or code // 100 in (4, 5):
        return None
    if verb in ("HELO", "EHLO") and octets - len("EHLO ") >= _NAME_OCTETS:
        return "stalled"
    if verb in ("STARTTLS", "DATA") or (verb == "AUTH" and " " in line):
        return f"bypassed by {verb.lower()}"
    if _MAIL.match(line) or _RCPT.match(line):
        if not _ADDRESS.search(line) and "<>" not in line:
            return "stalled"
        return "decided" if _RCPT.match(line) else None
    return "no_envelope" if verb == "QUIT" else None


def recordio(session: Json, tls_ends: str) -> str:
    if any(line.upper().startswith("MAIL FROM") for line, _, _ in _in_clear(session)):
        return "decided"
    if not _encrypted(session):
        return _nothing_found(session)
    if tls_ends == "proxy":
        return "decided"
    if _implicit(session):
        return "blind by implicit_tls"
    return "stalled by starttls" if tls_ends == "ucspi-tls" else "blind by starttls"


def jgreylist(_session: Json, _tls_ends: str) -> str:
    return "decided"


def spamd(session: Json, _tls_ends: str) -> str:
    if _implicit(session):
        return "blind by implicit_tls"
    for line, code, _ in _in_clear(session):
        if line.upper().startswith("RCPT TO"):
            return "decided"
        if line.upper().startswith("STARTTLS") and code == 220:
            return "decided by starttls"
    return _nothing_found(session)


def policy_service(session: Json, _tls_ends: str) -> str:
    asked = (
        line.upper().startswith("RCPT TO") and code not in (500, 501, 502, 503, 504, 530, 555)
        for line, code, _ in _in_clear(session)
    )
    if _encrypted(session) or any(asked):
        return "decided"
    return _nothing_found(session)


ORACLES: Final[dict[str, Oracle]] = {
    "greylite": greylite,
    "jgreylist": jgreylist,
    "policy_service": policy_service,
    "recordio": recordio,
    "spamd": spamd,
}


def _in_clear(session: Json) -> list[tuple[str, int | None, bool]]:
    """The client's lines before TLS; the responses within an AUTH are none of them."""
    lines = [(line, code, in_tls) for line, code, in_tls in session["commands"] if line != "<auth-response>"]
    first_in_tls = next((number for number, (_, _, in_tls) in enumerate(lines) if in_tls), len(lines))
    return lines[:first_in_tls]


def _octets(line: str) -> int:
    """Without the line end; long lines are printed in short, with their length."""
    in_short = _PRINTED_IN_SHORT.search(line)
    return int(in_short[1]) if in_short else len(line.encode("utf-8", "surrogateescape"))


def _implicit(session: Json) -> bool:
    return bool(session["tls"] and session["tls"].get("implicit"))


def _encrypted(session: Json) -> bool:
    return bool(session["tls"])


def _nothing_found(session: Json) -> str:
    return "unknown" if session["end"] == "open_at_capture_end" else "no_envelope"
