"""What the dialogue reports. Things that happened, in the order in which they can have happened."""

from dataclasses import dataclass

from monitor.anomalies import Anomaly
from monitor.smtp.grammar import Command
from monitor.smtp.replies import Reply


@dataclass(frozen=True, slots=True)
class BannerReceived:
    """The server's greeting, RFC 5321 section 3.1."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class CommandSent:
    command: Command


@dataclass(frozen=True, slots=True)
class CommandAnswered:
    """Every `CommandSent` is followed by exactly one of these, in the order of the commands; but each step of
    an AUTH exchange is an answer, and a server that answers for each recipient (LMTP, PRDR) answers
    `END_OF_DATA` more than once."""

    command: Command
    reply: Reply | None
    """None where no reply was seen."""
    in_doubt: bool = False
    """No reply was seen, but there may have been one: bytes were lost."""


@dataclass(frozen=True, slots=True)
class BodyStarted:
    """The server asked for the message (354)."""


@dataclass(frozen=True, slots=True)
class AnomalySeen:
    anomaly: Anomaly


@dataclass(frozen=True, slots=True)
class TlsAccepted:
    """STARTTLS was answered 2xx: what follows in both directions is TLS's."""


@dataclass(frozen=True, slots=True)
class CommandsLost:
    """Client bytes were lost which may have held commands."""


Event = (
    BannerReceived | CommandSent | CommandAnswered | BodyStarted | AnomalySeen | TlsAccepted | CommandsLost
)
