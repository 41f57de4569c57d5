"""Whether the server greeted inside TLS. It does where TLS was there from the first byte; after STARTTLS the
client speaks first. The tap does not know which of the two it has: the first events tell."""

from enum import Enum, auto
from typing import Final

from monitor.smtp.grammar import GREETINGS, TLS_STARTERS, parse_command

_GREETING: Final = b"220"
_CLOSING: Final = b"421"
_MAY_ANSWER_220: Final = TLS_STARTERS | {"XCLIENT"}


class Opening(Enum):
    """What the first reply was."""

    BANNER = auto()
    """The server's greeting, or what it says in its place."""
    ANSWER = auto()
    """The answer to the client's first command."""
    UNCLEAR = auto()


def opening(spoken: bytes, code: bytes) -> Opening:
    """
    Args:
        spoken: what the client had said before.
        code: of the server's first reply.
    """
    if not spoken:
        return Opening.BANNER
    verb = parse_command(spoken.partition(b"\n")[0]).verb
    if code == _GREETING:
        # A client that did not wait for it. But a few commands are answered so, too.
        return Opening.UNCLEAR if verb in _MAY_ANSWER_220 else Opening.BANNER
    if code.startswith(b"2") or code == _CLOSING or verb in GREETINGS:
        return Opening.ANSWER
    # A server may refuse whoever speaks too early, in place of its greeting.
    return Opening.UNCLEAR


def is_greeting(spoken: bytes, code: bytes) -> bool | None:
    """Did the server greet inside TLS? None where that is not certain: what stands in a greeting's place
    may be a time-out after STARTTLS, and the first refusal of a client that spoke too early may be
    either."""
    found = opening(spoken, code)
    if found is Opening.BANNER:
        return True if code == _GREETING else None
    return False if found is Opening.ANSWER and code.startswith(b"2") else None
