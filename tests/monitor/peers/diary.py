"""Sessions in a line each -> records, told to a `Peers` in the order of the lines.

    WHEN PEER STARTTLS [MAIL ...] [FLAG ...] [TAP [MAIL ...]]

    0s      192.0.2.1  unused       a>b:450        a RCPT answered 450
    6m      192.0.2.1  unused       a>b:250/451    accepted, and then the message answered 451
    1h-2h   192.0.2.1  established                 from one hour to two hours
    2d1us   192.0.2.1  refused
    0s      192.0.2.1  established  whole a>b:450  a tap saw that inside TLS

WHEN counts from noon; a session without an end lasts a second. STARTTLS is the outcome. The envelope follows
from these, but for the flags: `tls` encrypted from the first byte, `lost` nothing of it is known, `open` its
end was not captured, `gap` captured with a gap, `overflow` too long for its lists, and the directions.
TAP is the result of a tap; each MAIL behind it was inside TLS.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from monitor.anomalies import Anomaly
from monitor.peers import Peers, Returns
from monitor.sessions.record import (
    Capture,
    Channel,
    Data,
    Direction,
    Endpoint,
    Envelope,
    Recipient,
    SessionRecord,
    Starttls,
    StarttlsOutcome,
    Tapped,
    TapResult,
    Transaction,
    TransactionOutcome,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
_UNITS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "us": 1}
_FLAGS = {"tls", "lost", "open", "gap", "overflow", *Direction}
_TAP_RESULTS = set(TapResult)
_INCOMPLETE = Capture(complete=False, gap_bytes=10, midstream=False, truncated=False)
_MAIL = re.compile(r"(\S*)>(\S*):(\d+|-)(?:/(\d+|-))?")

MakeRecord = Callable[..., SessionRecord]


class Diary:
    def __init__(self, make_record: MakeRecord, **limits: Any) -> None:
        self._make_record = make_record
        self.peers = Peers(**limits)

    def tell(self, lines: str) -> "Diary":
        for line in filter(None, map(str.strip, lines.splitlines())):
            if line.startswith("tick"):
                self.peers.tick(nanoseconds(line.split()[1]))
            else:
                self.peers.record(self.record(line))
        return self

    def record(self, line: str) -> SessionRecord:
        when, peer, outcome, *words = line.split()
        of_tap = next((place for place, word in enumerate(words) if word in _TAP_RESULTS), len(words))
        rest, inside = words[:of_tap], words[of_tap:]
        begin, _, end = when.partition("-")
        flags = set(rest) & _FLAGS
        mails = [_transaction(word) for word in rest if word not in _FLAGS]
        ended = moment(end) if end else moment(begin) + timedelta(seconds=1)
        codes = {"refused": (454,), "established": (220,), "failed": (220,), "abandoned": (220,)}
        changes: dict[str, Any] = {
            "start": text(moment(begin)),
            "end": text(ended),
            "client": Endpoint(peer, 40_000),
            "direction": next((one for one in Direction if one in flags), Direction.INBOUND),
            "starttls": Starttls(None, 0, codes.get(outcome, ()), StarttlsOutcome(outcome)),
            "transactions": tuple(mails),
            "auth": (),
            "tapped": _tapped(*inside) if inside else None,
            "channel": Channel.CLEARTEXT,
            "envelope": Envelope.VISIBLE if mails else Envelope.NONE,
        }
        if outcome == "established":
            changes["channel"] = Channel.STARTTLS
            changes["envelope"] = Envelope.PARTIAL if mails else Envelope.HIDDEN
        elif outcome == "failed":
            changes["channel"] = Channel.STARTTLS
        if "tls" in flags:
            changes |= {"channel": Channel.IMPLICIT_TLS, "envelope": Envelope.HIDDEN}
        if "lost" in flags:
            changes |= {"channel": Channel.UNKNOWN, "envelope": Envelope.UNKNOWN, "capture": _INCOMPLETE}
        if "open" in flags:
            changes |= {"envelope": Envelope.VISIBLE if mails else Envelope.UNKNOWN, "capture": _INCOMPLETE}
        if "gap" in flags:
            changes["capture"] = _INCOMPLETE
        if "overflow" in flags:
            changes["anomalies"] = (Anomaly.LIST_OVERFLOW,)
        return self._make_record(**changes)

    # ------------------------------------------------------------------ what came of it

    @property
    def returns(self) -> dict[str, int]:
        """All that is not zero, and what is given up, as `put_off clear`."""
        return _counted(self.peers)

    @property
    def tapped_returns(self) -> dict[str, int]:
        """The same of what was put off inside TLS."""
        assert self.peers.tapped_returns is not None
        return _counted(self.peers.tapped_returns)

    @property
    def needs(self) -> dict[str, tuple[int, int]]:
        """Peers and their hidden sessions, of each need that any peer has."""
        peers, dark = self.peers.peers, self.peers.dark_sessions
        return {str(need): (peers[need,], dark[need,]) for (need,) in peers if peers[need,] or dark[need,]}


def _counted(source: Peers | Returns) -> dict[str, int]:
    counted = {f"{after} {how}": count for (after, how), count in source.returns.items()}
    counted |= {f"{after} {why}": count for (after, why), count in source.given_up.items()}
    counted |= {f"{after} pending": count for after, count in source.pending.items()}
    return {name: count for name, count in counted.items() if count}


def _tapped(result: str, *mails: str) -> Tapped:
    return Tapped(TapResult(result), tuple(map(_transaction, mails)))


def moment(after_noon: str) -> datetime:
    parts = re.findall(r"(\d+)(us|[dhms])", after_noon)
    assert parts, after_noon
    return NOON + timedelta(microseconds=sum(int(count) * _UNITS[unit] for count, unit in parts))


def nanoseconds(after_noon: str) -> int:
    return (moment(after_noon) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000


def text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def mail_refused(record: SessionRecord, code: int) -> SessionRecord:
    """The same, with every MAIL answered `code`."""
    return replace(record, transactions=tuple(replace(one, mail_code=code) for one in record.transactions))


def _transaction(word: str) -> Transaction:
    found = _MAIL.fullmatch(word)
    assert found, word
    sender, recipient, answer, final = found.groups()
    return Transaction(
        mail_from=None if sender == "?" else sender,
        mail_code=250,
        mail_params={},
        recipients=(Recipient(None if recipient == "?" else recipient, _code(answer), {}, 0.1),),
        data=Data("DATA", 100, _code(final)) if final is not None else None,
        outcome=TransactionOutcome.UNKNOWN,
    )


def _code(code: str) -> int | None:
    return None if code == "-" else int(code)
