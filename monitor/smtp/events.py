"""What the dialogue reports. Things that happened, in the order in which they can have happened.

Several are made for every line, so they are plain classes: what dataclasses make of a class is not compiled.
"""

from typing import Final

from mypy_extensions import mypyc_attr

from monitor.anomalies import Anomaly
from monitor.smtp.grammar import Command
from monitor.smtp.replies import Reply


@mypyc_attr(acyclic=True)
class BannerReceived:
    """The server's greeting, RFC 5321 section 3.1."""

    __slots__ = ("reply",)
    __match_args__: Final = ("reply",)

    def __init__(self, reply: Reply) -> None:
        self.reply: Final = reply


@mypyc_attr(acyclic=True)
class CommandSent:
    __slots__ = ("command",)
    __match_args__: Final = ("command",)

    def __init__(self, command: Command) -> None:
        self.command: Final = command


@mypyc_attr(acyclic=True)
class CommandAnswered:
    """Every `CommandSent` is followed by exactly one of these, in the order of the commands; but each step of
    an AUTH exchange is an answer, and a server that answers for each recipient (LMTP, PRDR) answers
    `END_OF_DATA` more than once."""

    __slots__ = ("command", "in_doubt", "reply")
    __match_args__: Final = ("command", "reply", "in_doubt")

    def __init__(self, command: Command, reply: Reply | None, in_doubt: bool = False) -> None:
        self.command: Final = command
        self.reply: Final = reply
        """None where no reply was seen."""
        self.in_doubt: Final = in_doubt
        """No reply was seen, but there may have been one: bytes were lost."""


@mypyc_attr(acyclic=True)
class BodyStarted:
    """The server asked for the message (354)."""

    __slots__ = ()


@mypyc_attr(acyclic=True)
class AnomalySeen:
    __slots__ = ("anomaly",)
    __match_args__: Final = ("anomaly",)

    def __init__(self, anomaly: Anomaly) -> None:
        self.anomaly: Final = anomaly


@mypyc_attr(acyclic=True)
class TlsAccepted:
    """STARTTLS was answered 2xx: what follows in both directions is TLS's."""

    __slots__ = ()


@mypyc_attr(acyclic=True)
class CommandsLost:
    """Client bytes were lost which may have held commands."""

    __slots__ = ()


Event = (
    BannerReceived | CommandSent | CommandAnswered | BodyStarted | AnomalySeen | TlsAccepted | CommandsLost
)
