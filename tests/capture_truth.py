"""The truth that lies beside each capture -> `SessionTruth`s.

`NAME.truth.json` was written by the driver of the capture, from what it did and was answered, and by the
servers' logs. It speaks of the whole session; what stood in clear is told by its `tls` flags.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.lab.truth import LOST, NO_TLS, DataTruth, SessionTruth, TransactionTruth

CAPTURES: Final = Path(__file__).parent / "captures"

Json = dict[str, Any]

# The driver cut addresses out of its own lines with a rule that quotes and routes defeat; the line itself is
# true.
_MAIL_LINE: Final = re.compile(r'mail\s+from:?\s*(?:<((?:"[^"]*"|[^>"])*)>|<?(\S*))', re.IGNORECASE)
_SOURCE_ROUTE: Final = re.compile(r"^@[^:]*:")
_ENDS: Final = {
    "quit": {"quit"},
    # A client that closes with bytes unread resets the connection; one that closes late is not the first.
    "fin_no_quit": {"client_closed", "server_closed", "reset"},
    "rst": {"reset"},
    "handshake_failed": {"client_closed", "server_closed", "reset"},
    "server_closed": {"server_closed", "reset"},
    "server_timeout_421": {"server_closed"},
    "server_421_too_many_errors": {"server_closed", "reset"},
    "open_at_capture_end": {"capture_ended"},
}


def capture_names() -> list[str]:
    """All captures with one truth for the whole file."""
    return sorted(path.name.removesuffix(".truth.json") for path in CAPTURES.glob("*.truth.json"))


def truths(name: str) -> list[SessionTruth]:
    """What the driver says of each connection that was established."""
    return [
        _session(session) for session in _sessions(name) if session.get("tcp", "established") == "established"
    ]


def server_logs(name: str) -> list[Json]:
    """What the servers logged, as the truth file has it."""
    path = CAPTURES / f"{name}.truth.json"
    return list(json.loads(path.read_text())["server_log_sessions"]) if path.exists() else []


def _sessions(name: str) -> Iterator[Json]:
    lines = CAPTURES / f"{name}.truth.jsonl"
    if lines.exists():
        yield from map(json.loads, lines.read_text().splitlines())
    else:
        yield from json.loads((CAPTURES / f"{name}.truth.json").read_text())["sessions"]


def _session(session: Json) -> SessionTruth:
    starttls, tls = session.get("starttls") or {}, session.get("tls")
    outcome = _outcome(session, starttls, hidden=bool(tls and tls.get("implicit")))
    session = _without_misreadings(session)
    hidden = bool(tls and tls.get("implicit"))
    attempt = session.get("tls_attempt")
    hello: Json | None = tls or attempt
    return SessionTruth(
        witness="the driver",
        client=_endpoint(session.get("behind_middlebox_as") or session["client"]),
        server=_server(session),
        channel=_channel(session, starttls, hidden=hidden),
        envelope=_envelope(session, starttls, hidden=hidden),
        banner=_banner(session, hidden=hidden),
        helo=tuple(
            (one["verb"].upper(), one["arg"].strip(), _code(one.get("code")))
            for one in session.get("helo", [])
            if not one.get("tls")
        )
        if "helo" in session
        else None,
        starttls_offered=_offered(session, starttls, hidden=hidden),
        starttls_codes=tuple(starttls["codes"]) if "codes" in starttls and not hidden else None,
        starttls_outcome=outcome,
        tls_version=tls["version"]
        if tls
        else (NO_TLS if "tls" in session and not attempt and not starttls.get("handshake") else None),
        tls_cipher=tls["cipher"] if tls and tls.get("cipher") else None,
        tls_sni=(hello["sni"] or "") if hello else None,
        auth=tuple((one["mech"].upper(), one["code"]) for one in session["auth"] if not one.get("tls"))
        if "auth" in session
        else None,
        transactions=tuple(_transaction(one) for one in session["transactions"] if not one.get("tls"))
        if "transactions" in session
        else None,
        ended=_ended(session, tls),
    )


def _without_misreadings(session: Json) -> Json:
    """Some truths were read from a client's printed transcript, line by line, where pipelined commands and
    the steps of AUTH look like something else: what is not trustworthy there is not known."""
    session = dict(session)
    transcript = session.get("transcript")
    if transcript is not None:
        if not session.get("transactions") and " -> MAIL" in transcript:
            session.pop("transactions", None)
        if any(one["code"] == 334 for one in session.get("auth", [])):
            session.pop("auth")
    if any("code" not in one for one in session.get("helo", [])):
        session.pop("helo")
    if session.get("end") == "server_closed" and not session.get("commands"):
        session.pop("helo", None)  # its EHLO was not counted, because nobody answered it
    if any("bytes]" in one["arg"] for one in session.get("helo", [])):
        session.pop("helo")  # printed in short
        session.pop("transactions")
    if session.get("end") == "open_at_capture_end":
        session.pop("transactions", None)  # what became of them is beyond the capture
    return session


def _channel(session: Json, starttls: Json, *, hidden: bool) -> str | None:
    if hidden:
        return "implicit_tls"
    handshake = starttls.get("handshake")
    if "handshake" not in starttls or session.get("client_sw") is None:
        return None
    if handshake in (None, "client_closed_before_hello", "client_sent_garbage"):
        return "cleartext"
    return "starttls"


def _envelope(session: Json, starttls: Json, *, hidden: bool) -> str | None:
    if "transactions" not in session or "handshake" not in starttls:
        return None
    in_clear = any(not one.get("tls") for one in session["transactions"])
    if hidden or starttls["handshake"] == "ok":
        return "partial" if in_clear else "hidden"
    return "visible" if in_clear else "none"


def _banner(session: Json, *, hidden: bool) -> tuple[int, str] | None:
    banner = session.get("banner")
    return (int(banner[:3]), banner[4:]) if banner and not hidden else None


def _offered(session: Json, starttls: Json, *, hidden: bool) -> bool | None:
    """None where nobody asked with EHLO in clear, or a middlebox stood between the driver and the capture."""
    ehlo = any(
        one["verb"].upper() == "EHLO" and one.get("code") == 250 and not one.get("tls")
        for one in session.get("helo", [])
    )
    if hidden or not ehlo or "behind_middlebox_as" in session or "strip" in session.get("server_sw", ""):
        return None
    return bool(starttls["offered"]) if "offered" in starttls else None


def _outcome(session: Json, starttls: Json, *, hidden: bool) -> frozenset[str] | None:
    if hidden or "handshake" not in starttls or "strip" in session.get("server_sw", ""):
        return None
    handshake, codes = starttls["handshake"], starttls["codes"]
    if handshake == "ok":
        return frozenset({"established"})
    if handshake in ("client_closed_before_hello", "client_sent_garbage"):
        return frozenset({"abandoned"})
    if handshake is not None:
        return frozenset({"failed"})
    if codes:
        return frozenset({"refused"})
    if starttls["requested"]:
        return None
    if not any(one["verb"].upper() == "EHLO" and one.get("code") == 250 for one in session.get("helo", [])):
        return frozenset({"not_reached"})
    return frozenset({"unused" if starttls["offered"] else "not_offered"})


def _ended(session: Json, tls: Json | None) -> frozenset[str] | None:
    if tls or (session.get("starttls") or {}).get("handshake") == "ok":
        return None  # the QUIT was inside TLS
    ends = _ENDS.get(session.get("end") or "")
    return frozenset(ends) if ends else None


def _transaction(transaction: Json) -> TransactionTruth:
    line = _MAIL_LINE.match(transaction["mail_line"]) if "mail_line" in transaction else None
    address = (line[1] or line[2] or "") if line else transaction["mail_from"]
    data = transaction["data"]
    return TransactionTruth(
        mail_from=_SOURCE_ROUTE.sub("", address),
        mail_code=_code(transaction["mail_code"]),
        recipients=tuple(
            (_SOURCE_ROUTE.sub("", one["to"]), _code(one["code"])) for one in transaction["rcpts"]
        ),
        data=DataTruth(data["verb"], data.get("wire_bytes"), _code(data["final_code"])) if data else None,
        outcome=_transaction_outcome(transaction),
    )


def _transaction_outcome(transaction: Json) -> str | None:
    data = transaction["data"]
    if data and data["final_code"] is not None:
        return "accepted" if data["final_code"] // 100 == 2 else "rejected"
    codes = [one["code"] for one in transaction["rcpts"]]
    if transaction["mail_code"] is not None and transaction["mail_code"] // 100 != 2:
        return "rejected"
    if data or not codes or any(code is not None and code // 100 == 2 for code in codes):
        return "aborted"
    return "rejected" if None not in codes else None


def _server(session: Json) -> tuple[str, int]:
    """Behind the middlebox the server has an address on the middlebox's other network."""
    ip, port = _endpoint(session["server"])
    if "behind_middlebox_as" in session:
        network = session["behind_middlebox_as"][0].rpartition(".")[0]
        ip = f"{network}.{ip.rpartition('.')[2]}"
    return ip, port


def _endpoint(pair: list[Any]) -> tuple[str, int]:
    return pair[0], pair[1]


def _code(code: int | None) -> int:
    """The truth's null: sent, and no reply seen."""
    return LOST if code is None else code
