"""What one record says of its peer."""

from dataclasses import dataclass
from typing import Final

from monitor.anomalies import Anomaly
from monitor.sessions.record import (
    Channel,
    Envelope,
    Recipient,
    SessionRecord,
    StarttlsOutcome,
    Transaction,
    epoch_us,
)

_HIDDEN: Final = frozenset({Envelope.HIDDEN, Envelope.PARTIAL})


@dataclass(frozen=True, slots=True)
class Visit:
    """One session, as far as it matters to who comes back."""

    ip: str
    """The peer: the proxied client where there is one."""
    began_ns: int
    """The first packet, since the epoch."""
    ended_ns: int
    """The last packet."""
    starttls: StarttlsOutcome
    mail_in_clear: bool
    is_dark: bool
    """Encryption hid what it carried, all or the rest."""
    is_hidden_by_starttls: bool
    ended_without_mail: bool
    """In clear to its end, and no MAIL."""
    mail_in_doubt: bool
    """Whether it sent a MAIL in clear, or came to encryption, was not captured."""
    recipients_in_doubt: bool
    """It may have had more recipients in clear than the record lists."""
    put_off: dict[tuple[str, str], bool]
    """Each sender and recipient seen in clear, and whether the last answer to it in the session was 4xx."""


def visit_of(record: SessionRecord) -> Visit:
    envelope = record.envelope
    mail_in_clear = bool(record.transactions) or envelope in (Envelope.VISIBLE, Envelope.PARTIAL)
    return Visit(
        ip=record.real_client.ip,
        began_ns=epoch_us(record.start) * 1_000,
        ended_ns=epoch_us(record.end) * 1_000,
        starttls=record.starttls.outcome,
        mail_in_clear=mail_in_clear,
        is_dark=envelope in _HIDDEN,
        is_hidden_by_starttls=envelope in _HIDDEN and record.channel is Channel.STARTTLS,
        ended_without_mail=envelope is Envelope.NONE and not mail_in_clear,
        mail_in_doubt=envelope is Envelope.UNKNOWN and not mail_in_clear,
        recipients_in_doubt=_has_gaps_in_its_recipients(record),
        put_off=_put_off(record.transactions),
    )


def _put_off(transactions: tuple[Transaction, ...]) -> dict[tuple[str, str], bool]:
    answers = {}
    for transaction in transactions:
        sender = transaction.mail_from
        if sender is None:
            continue
        for recipient in transaction.recipients:
            if recipient.address is not None:
                answers[sender, recipient.address] = _is_put_off(transaction, recipient)
    return answers


def _is_put_off(transaction: Transaction, recipient: Recipient) -> bool:
    if _is_4xx(transaction.mail_code) or _is_4xx(recipient.code):
        return True
    is_accepted = recipient.code is not None and recipient.code // 100 == 2
    return is_accepted and transaction.data is not None and _is_4xx(transaction.data.code)


def _is_4xx(code: int | None) -> bool:
    return code is not None and code // 100 == 4


def _has_gaps_in_its_recipients(record: SessionRecord) -> bool:
    if record.envelope in (Envelope.HIDDEN, Envelope.NONE):
        return False  # known to have had none in clear, whatever else of it was not captured
    return (
        record.envelope is Envelope.UNKNOWN
        or not record.capture.complete
        or Anomaly.LIST_OVERFLOW in record.anomalies
    )
