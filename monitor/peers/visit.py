"""What one record says of its peer."""

from typing import Final

from monitor.anomalies import Anomaly
from monitor.sessions.record import (
    Channel,
    Envelope,
    Recipient,
    SessionRecord,
    Transaction,
    epoch_us,
)

_HIDDEN: Final = frozenset({Envelope.HIDDEN, Envelope.PARTIAL})
_WITH_MAIL: Final = frozenset({Envelope.VISIBLE, Envelope.PARTIAL})
_WITHOUT_RECIPIENTS: Final = frozenset({Envelope.HIDDEN, Envelope.NONE})
_NONE: Final = Envelope.NONE
_UNKNOWN: Final = Envelope.UNKNOWN
_STARTTLS: Final = Channel.STARTTLS


class Visit:
    """One session, as far as it matters to who comes back."""

    __slots__ = (
        "began_ns",
        "ended_ns",
        "ended_without_mail",
        "ip",
        "is_dark",
        "is_hidden_by_starttls",
        "mail_in_clear",
        "mail_in_doubt",
        "put_off",
        "recipients_in_doubt",
        "starttls",
    )

    def __init__(self, record: SessionRecord) -> None:
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
        self.is_dark: Final = is_dark
        """Encryption hid what it carried, all or the rest."""
        self.is_hidden_by_starttls: Final = is_dark and record.channel is _STARTTLS
        self.ended_without_mail: Final = envelope is _NONE and not mail_in_clear
        """In clear to its end, and no MAIL."""
        self.mail_in_doubt: Final = envelope is _UNKNOWN and not mail_in_clear
        """Whether it sent a MAIL in clear, or came to encryption, was not captured."""
        self.recipients_in_doubt: Final = _has_gaps_in_its_recipients(record)
        """It may have had more recipients in clear than the record lists."""
        self.put_off: Final = _put_off(record.transactions)
        """Each sender and recipient seen in clear, and whether the last answer to it in the session was
        4xx."""


def _put_off(transactions: tuple[Transaction, ...]) -> dict[tuple[str, str], bool]:
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
