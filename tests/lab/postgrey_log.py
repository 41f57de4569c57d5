"""What postgrey logs of each question that it is asked: a line `action=…, reason=…, …`.

It names the client's address but not its port, and leaves out what is empty: the null sender, and the queue
id, which Postfix has from the first recipient that it accepts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_LINE: Final = re.compile(
    r"(?:\w+: )?action=(?P<action>\w+), reason=(?P<reason>[\w -]+?)(?: \(\d+s missing\))?"
    r"(?:, delay=(?P<waited>\d+))?, client_name=\S+, client_address=(?P<client>[0-9a-fA-F.:]+)"
    r"(?:, sender=(?P<sender>.*?))?, recipient=(?P<recipient>.*)"
)

# Octets that are not printable ASCII are written in hexadecimal, and a per cent sign twice.
_ESCAPED: Final = re.compile(rb"%(?:(%)|([0-9A-F]{2}))")


class Reason(StrEnum):
    NEW = "new"
    EARLY_RETRY = "early-retry"
    TRIPLET_FOUND = "triplet found"
    CLIENT_AWL = "client AWL"
    """The client has been whitelisted for its successes."""
    RECIPIENT_WHITELIST = "recipient whitelist"


@dataclass(frozen=True, slots=True)
class Answer:
    """What postgrey was asked, and what it said."""

    reason: Reason
    client: str
    sender: str
    recipient: str
    waited_seconds: int | None = None
    """Of a message's first recipient that passes after it was deferred; None for all others."""

    @property
    def deferred(self) -> bool:
        return self.reason in (Reason.NEW, Reason.EARLY_RETRY)


def read_postgrey_log(log: str) -> Iterator[Answer]:
    """All answers, in order. Raises ValueError for a line that says `action=` in a way of its own."""
    for line in log.splitlines():
        if "action=" not in line:
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"not understood: {line}")
        answer = Answer(
            Reason(found["reason"]),
            found["client"],
            _unescaped(found["sender"] or ""),
            _unescaped(found["recipient"]),
            int(found["waited"]) if found["waited"] else None,
        )
        if answer.deferred != (found["action"] == "greylist"):
            raise ValueError(f"not understood: {line}")
        yield answer


def _unescaped(text: str) -> str:
    octets = _ESCAPED.sub(lambda found: found[1] or bytes.fromhex(found[2].decode()), text.encode())
    return octets.decode("utf-8", "backslashreplace")
