"""What one record says of its peer."""

from typing import Final

from monitor.anomalies import Anomaly
from monitor.sessions.record import (
    Channel,
    Envelope,
    Recipient,
    SessionRecord,
    Tapped,
    TapResult,
    Transaction,
    epoch_us,
)

_HIDDEN: Final = frozenset({Envelope.HIDDEN, Envelope.PARTIAL})
_WITH_MAIL: Final = frozenset({Envelope.VISIBLE, Envelope.PARTIAL})
_WITHOUT_RECIPIENTS: Final = frozenset({Envelope.HIDDEN, Envelope.NONE})
_NONE: Final = Envelope.NONE
_UNKNOWN: Final = Envelope.UNKNOWN
_STARTTLS: Final = Channel.STARTTLS
_SEEN_IN_PART: Final = frozenset({TapResult.PARTIAL, TapResult.UNSURE})
_MISSED: Final = TapResult.MISSED
_NOTHING_INSIDE: Final = Tapped(TapResult.WHOLE)
_NOTHING_SEEN: Final = Tapped(TapResult.MISSED)

Mail = tuple[str, str]
"""Sender and recipient."""
_NONE_INSIDE: Final[frozenset[Mail]] = frozenset()


class Visit:
    """One session, as far as it matters to who comes back."""

    __slots__ = (
        "began_ns",
        "ended_ns",
        "ended_without_mail",
        "first_seen_inside",
        "ip",
        "is_dark",
        "is_hidden_by_starttls",
        "mail_in_clear",
        "mail_in_doubt",
        "mail_seen",
        "recipients_in_doubt",
        "seen",
        "starttls",
    )

    def __init__(self, record: SessionRecord, *, is_tapped: bool = False) -> None:
        """As it looks to who reads the stream, whatever a tap may have told. `is_tapped`: as it looks to the
        mail server, as far as its tap tells."""
        envelope = record.envelope
        is_dark = envelope in _HIDDEN
        mail_in_clear = bool(record.transactions) or envelope in _WITH_MAIL
        self.ip: Final = record.real_client.ip
        """The peer: the proxied client where there is one."""
        self.began_ns: Final = epoch_us(record.start) * 1_000
        """The first packet, since the epoch."""
        self.ended_ns: Final = epoch_us(record.end) * 1_000
        """The last packet."""
        self.starttls: Final = record.starttls.outcome
        self.mail_in_clear: Final = mail_in_clear
        self.mail_seen = mail_in_clear
        """With a MAIL in clear, or that a tap saw."""
        self.is_dark = is_dark
        """Encryption hid what it carried, all or the rest; from the tap, too."""
        self.is_hidden_by_starttls: Final = is_dark and record.channel is _STARTTLS
        self.ended_without_mail: Final = envelope is _NONE and not mail_in_clear
        """In clear to its end, and no MAIL."""
        self.mail_in_doubt: Final = envelope is _UNKNOWN and not mail_in_clear
        """Whether it sent a MAIL in clear, or came to encryption, was not captured."""
        self.recipients_in_doubt = _has_gaps_in_its_recipients(record)
        """It may have had more recipients than the record lists, where they are not hidden."""
        self.seen = _put_off(record.transactions)
        """Each sender and recipient that is seen, and whether it was put off: the last answer to it in the
        session was 4xx (and inside TLS, as it looks to the mail server)."""
        self.first_seen_inside = _NONE_INSIDE
        """Of these, those that were not seen in clear before."""
        if is_tapped:
            self._look_inside(record.tapped or (_NOTHING_SEEN if is_dark else _NOTHING_INSIDE))

    def _look_inside(self, tapped: Tapped) -> None:
        """What comes inside TLS comes after all that is in clear."""
        inside = _put_off(tapped.transactions)
        self.mail_seen = self.mail_seen or bool(tapped.transactions)
        self.is_dark = tapped.result is _MISSED
        self.recipients_in_doubt = self.recipients_in_doubt or tapped.result in _SEEN_IN_PART
        self.first_seen_inside = frozenset(inside.keys() - self.seen.keys())
        self.seen = dict.fromkeys(self.seen, False) | inside


def _put_off(transactions: tuple[Transaction, ...]) -> dict[Mail, bool]:
    answers = {}
    for transaction in transactions:
        sender = transaction.mail_from
        if sender is None:
            continue
        for recipient in transaction.recipients:
            address = recipient.address
            if address is not None:
                answers[sender, address] = _is_put_off(transaction, recipient)
    return answers


def _is_put_off(transaction: Transaction, recipient: Recipient) -> bool:
    if _is_4xx(transaction.mail_code) or _is_4xx(recipient.code):
        return True
    is_accepted = recipient.code is not None and recipient.code // 100 == 2
    return is_accepted and transaction.data is not None and _is_4xx(transaction.data.code)


def _is_4xx(code: int | None) -> bool:
    return code is not None and code // 100 == 4


def _has_gaps_in_its_recipients(record: SessionRecord) -> bool:
    envelope = record.envelope
    if envelope in _WITHOUT_RECIPIENTS:
        return False  # known to have had none in clear, whatever else of it was not captured
    return envelope is _UNKNOWN or not record.capture.complete or Anomaly.LIST_OVERFLOW in record.anomalies
