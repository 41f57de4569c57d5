"""What the client's next bytes mean: the phases of the client's side, and the table that moves between them.

RFC 5321 section 4.1.4 orders the commands; but a passive reader need not police that order, the server does.
It must only know at every byte which of these it reads:

- **commands**, a line each (section 2.3.8);
- a **message**, after DATA was answered 354 (section 4.1.1.4: "the receiver-SMTP must be ... prepared to
  treat the lines (strings ending in <CRLF> sequences) following the command as mail data"), until CRLF "."
  CRLF;
- a counted **chunk**, after BDAT, whatever the server says of it (RFC 3030 section 2: "the receiver-SMTP MUST
  accept and discard the associated message data");
- a **secret**, after AUTH was answered 334 (RFC 4954 section 4), line by line until another reply than 334;
- **TLS**, after STARTTLS was answered 2xx (RFC 3207 section 4);
- or nothing that we could know, until the reader has found its feet again.

After STARTTLS, AUTH and DATA that depends on the reply. So the phases that end in `_SENT` hold the client's
bytes back, unread, until the reply has come.

    COMMANDS ──DATA──▶ DATA_SENT ──3xx──▶ BODY ──end of message──▶ COMMANDS
       │  ▲ ▲ ▲            └─────other reply────────────────────────▲
       │  │ │ └──other reply── AUTH_SENT ◀──AUTH── COMMANDS
       │  │ │                      │3xx
       │  │ │                      ▼
       │  │ └──other reply── AUTH_ANSWERED ◀──a line── AUTH_SECRET     (and 3xx leads back to AUTH_SECRET)
       │  └──4xx, 5xx── STARTTLS_SENT ──2xx──▶ TLS ──clear text again──▶ COMMANDS
       └──BDAT──▶ CHUNK ──counted out──▶ COMMANDS

    any phase ──bytes lost that matter there──▶ LOST ──a command proves where we are──▶ COMMANDS
"""

from enum import Enum, auto
from typing import Final


class Phase(Enum):
    """What the client's next bytes are."""

    __hash__ = object.__hash__  # by identity: Enum's own hashes the name, in Python, several times a line

    COMMANDS = auto()
    STARTTLS_SENT = auto()
    AUTH_SENT = auto()
    AUTH_SECRET = auto()
    AUTH_ANSWERED = auto()
    DATA_SENT = auto()
    BODY = auto()
    CHUNK = auto()
    """A BDAT chunk or the bytes after XEXCH50."""
    BLOB_SENT = auto()
    """XEXCH50 was sent: its raw bytes come after a 354, like a message's."""
    TLS = auto()
    """No longer ours to read."""
    TURNED = auto()
    """TURN or ATRN (RFC 2645) was accepted: client and server have changed places. Not followed."""
    LOST = auto()
    """Bytes were lost; what follows could be anything."""


class Input(Enum):
    """What happened."""

    __hash__ = object.__hash__

    STARTTLS = auto()
    AUTH = auto()
    DATA = auto()
    COUNTED = auto()
    """BDAT with a readable size."""
    BLOB = auto()
    """XEXCH50 with a readable size."""
    OTHER = auto()
    """Any other command."""
    SECRET = auto()
    """A line of an AUTH exchange."""
    END_OF_DATA = auto()
    """The end of a message, or the last byte of a chunk."""
    POSITIVE = auto()
    """2xx to the command which the phase waits for."""
    CONTINUE = auto()
    """3xx, likewise."""
    NEGATIVE = auto()
    """4xx, 5xx and any other, likewise."""
    TURN_ACCEPTED = auto()
    CLIENT_LOSS = auto()
    """Client bytes were lost, and with them the thread."""
    REPLY_LOSS = auto()
    """Server bytes were lost while a reply was awaited."""
    CLEAR_AGAIN = auto()
    """The connection is in clear (again): after TLS ended, or never began."""
    FOUND = auto()
    """A command, and proof that it is one."""
    OVERFLOW = auto()
    """More bytes had to be held back than may be."""


_P: Final = Phase
_I: Final = Input

_NAMED: Final[dict[Phase, dict[Input, Phase]]] = {
    _P.COMMANDS: {
        _I.STARTTLS: _P.STARTTLS_SENT,
        _I.AUTH: _P.AUTH_SENT,
        _I.DATA: _P.DATA_SENT,
        _I.COUNTED: _P.CHUNK,
        _I.BLOB: _P.BLOB_SENT,
        _I.CLIENT_LOSS: _P.LOST,
    },
    _P.STARTTLS_SENT: {
        _I.POSITIVE: _P.TLS,
        _I.CONTINUE: _P.COMMANDS,
        _I.NEGATIVE: _P.COMMANDS,
        _I.CLIENT_LOSS: _P.LOST,
        _I.REPLY_LOSS: _P.LOST,
        _I.OVERFLOW: _P.LOST,
    },
    _P.AUTH_SENT: {
        _I.POSITIVE: _P.COMMANDS,
        _I.CONTINUE: _P.AUTH_SECRET,
        _I.NEGATIVE: _P.COMMANDS,
        _I.CLIENT_LOSS: _P.LOST,
        _I.REPLY_LOSS: _P.LOST,
        _I.OVERFLOW: _P.LOST,
    },
    _P.AUTH_SECRET: {
        _I.SECRET: _P.AUTH_ANSWERED,
        # The server gave up waiting for the answer (a time-out, a limit).
        _I.POSITIVE: _P.COMMANDS,
        _I.NEGATIVE: _P.COMMANDS,
        _I.CLIENT_LOSS: _P.LOST,
        _I.REPLY_LOSS: _P.LOST,
    },
    _P.AUTH_ANSWERED: {
        _I.POSITIVE: _P.COMMANDS,
        _I.CONTINUE: _P.AUTH_SECRET,
        _I.NEGATIVE: _P.COMMANDS,
        _I.CLIENT_LOSS: _P.LOST,
        _I.REPLY_LOSS: _P.LOST,
        _I.OVERFLOW: _P.LOST,
    },
    _P.DATA_SENT: {
        _I.POSITIVE: _P.COMMANDS,
        _I.CONTINUE: _P.BODY,
        _I.NEGATIVE: _P.COMMANDS,
        _I.CLIENT_LOSS: _P.LOST,
        _I.REPLY_LOSS: _P.LOST,
        _I.OVERFLOW: _P.LOST,
    },
    _P.BODY: {
        _I.END_OF_DATA: _P.COMMANDS,
        _I.CLIENT_LOSS: _P.LOST,
    },
    _P.CHUNK: {
        _I.END_OF_DATA: _P.COMMANDS,
        _I.CLIENT_LOSS: _P.LOST,
    },
    _P.BLOB_SENT: {
        _I.POSITIVE: _P.COMMANDS,
        _I.CONTINUE: _P.CHUNK,
        _I.NEGATIVE: _P.COMMANDS,
        _I.CLIENT_LOSS: _P.LOST,
        _I.REPLY_LOSS: _P.LOST,
        _I.OVERFLOW: _P.LOST,
    },
    _P.TLS: {
        _I.CLEAR_AGAIN: _P.COMMANDS,
        _I.CLIENT_LOSS: _P.TLS,
    },
    _P.TURNED: {},
    _P.LOST: {
        _I.FOUND: _P.COMMANDS,
        _I.CONTINUE: _P.BODY,
        _I.POSITIVE: _P.TLS,
    },
}

AWAITS_REPLY: Final = frozenset(
    {_P.STARTTLS_SENT, _P.AUTH_SENT, _P.AUTH_ANSWERED, _P.DATA_SENT, _P.BLOB_SENT, _P.TLS, _P.TURNED}
)
"""Phases in which the client's bytes are not read."""

NOT_SMTP: Final = frozenset({_P.TLS, _P.TURNED})
"""Phases in which neither side's bytes are the dialogue's."""

TRANSITIONS: Final[dict[Phase, dict[Input, Phase]]] = {
    phase: {
        **dict.fromkeys(Input, phase),  # what a phase does not name leaves it as it is
        **({} if phase in NOT_SMTP else {_I.TURN_ACCEPTED: _P.TURNED}),
        **named,
    }
    for phase, named in _NAMED.items()
}
"""Every phase × every input -> the next phase."""
