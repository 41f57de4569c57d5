"""A command line, without its line end -> `Command`.

Lenient, because the server decides what is a command and we only read along: blanks anywhere, any case,
addresses with or without angle brackets. Nothing here raises.

ABNF: https://www.rfc-editor.org/rfc/rfc5321#section-4.1.2
"""

import re
from typing import Final

from mypy_extensions import mypyc_attr

LINE_LIMIT_BYTES: Final = 16_384
"""Longest command line that is kept: Exim's `smtp_cmd_buffer_size`, the largest of the common servers'."""

COMMAND_LINE_OCTETS: Final = 512  # RFC 5321 section 4.5.3.1.4, CRLF included
MAIL_LINE_OCTETS: Final = 1_512
"""MAIL and RCPT may be longer by what each extension adds: 1,000 covers DSN (RFC 3461: 500), SMTPUTF8, AUTH=
(RFC 4954: 500) and the small ones together."""
AUTH_LINE_OCTETS: Final = 12_288  # RFC 4954 section 4

GREETINGS: Final = frozenset({"HELO", "EHLO", "LHLO"})  # LHLO: RFC 2033
TLS_STARTERS: Final = frozenset({"STARTTLS", "X-ANONYMOUSTLS"})  # the second is Exchange's, among its own
AUTHENTICATORS: Final = frozenset({"AUTH", "X-EXPS"})  # X-EXPS is Exchange's AUTH
END_OF_DATA: Final = "."
"""Stands as the verb of what ends a message: it takes its place in the reply queue like a command."""

PIPELINABLE: Final = frozenset(
    {"RSET", "MAIL", "RCPT", "SEND", "SOML", "SAML", "BDAT", "BURL", "XFORWARD", END_OF_DATA}
)
"""What another command may follow before its reply, once PIPELINING was offered: RFC 2920 section 3.1, RFC
3030 section 2 (BDAT), RFC 4468 (BURL). EHLO, DATA, VRFY, EXPN, TURN, QUIT, NOOP and the rest end a group."""

KNOWN_VERBS: Final = (
    GREETINGS
    | TLS_STARTERS
    | AUTHENTICATORS
    | frozenset(
        {"MAIL", "RCPT", "DATA", "BDAT", "BURL", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP"}
        | {"ETRN", "TURN", "ATRN", "SEND", "SOML", "SAML", "XCLIENT", "XFORWARD", "XEXCH50"}
    )
)

_VERB_OF: Final = {verb.encode(): verb for verb in KNOWN_VERBS}
UNKNOWN_VERB: Final = "?"
"""Stands for any other word: it has its place in the reply queue, but what it was is nobody's business. After
a loss it may be a password."""

# A middlebox that hides STARTTLS overwrites its eight letters: XXXXXXXX, or with a letter as its mark at the
# end.
MASKED_STARTTLS: Final = re.compile(rb"X{7}[A-Z]\Z")
SASL_MECHANISMS: Final = (
    # The IANA registry of SASL mechanisms, cut to those that mail servers offer; and LOGIN, XOAUTH2 and NTLM,
    # which mail clients use though no RFC defines them.
    "ANONYMOUS",
    "CRAM-MD5",
    "DIGEST-MD5",
    "EXTERNAL",
    "GSSAPI",
    "LOGIN",
    "NTLM",
    "OAUTHBEARER",
    "PLAIN",
    "SCRAM-SHA-1",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-256",
    "SCRAM-SHA-256-PLUS",
    "XOAUTH2",
)
# What any mechanism's name looks like, RFC 4422 section 3.1. What stands there in small letters may be a
# password in the wrong place, and is a mechanism only if it is a known one.
_MECHANISM: Final = re.compile(rb"[A-Z0-9_-]{1,20}\Z")
_FROM: Final = re.compile(rb"FROM(?:[ \t]*:[ \t]*|[ \t]+|\Z)", re.IGNORECASE)
_TO: Final = re.compile(rb"TO(?:[ \t]*:[ \t]*|[ \t]+|\Z)", re.IGNORECASE)
_BDAT: Final = re.compile(rb"(\d{1,20})(?:[ \t]+(LAST))?[ \t]*\Z", re.IGNORECASE)
_XEXCH50: Final = re.compile(rb"(\d{1,20})(?:[ \t]|\Z)")
# A source route, RFC 5321 section 4.1.2 A-d-l, which "MUST be accepted, SHOULD NOT be generated" and is
# ignored.
_SOURCE_ROUTE: Final = re.compile(rb"@[^:<>\"]*:")
# An address without brackets ends at a blank outside quotes; one with brackets at a `>` outside quotes.
_BARE_PATH: Final = re.compile(rb'(?:"(?:[^"\\]|\\.)*"|[^ \t"])*')
# The second form is for a quote that is never closed.
_BRACKET_PATH: Final = re.compile(rb'<((?:"(?:[^"\\]|\\.)*"|[^>"])*)>')
_BRACKET_PATH_UNQUOTED: Final = re.compile(rb"<([^>]*)>")


NO_PARAMS: Final[dict[str, str | None]] = {}
"""One for all paths that have none: nobody writes into a path's parameters."""


@mypyc_attr(acyclic=True)
class Path:
    """The mailbox of MAIL or RCPT and its parameters."""

    __slots__ = ("address", "params")

    def __init__(self, address: str, params: dict[str, str | None]) -> None:
        self.address: Final = address
        """As sent, without angle brackets and source route; "" for the null sender."""
        self.params: Final = params
        """Keywords in upper case; None where a keyword stands without a value."""


@mypyc_attr(acyclic=True)
class Command:
    """A command that the client sent. Two commands are never equal: each has its own reply."""

    __slots__ = ("cut", "has_nul", "last", "line", "masked", "name", "octets", "path", "size_bytes", "verb")

    def __init__(
        self,
        verb: str,
        *,
        name: str = "",
        path: Path | None = None,
        size_bytes: int | None = None,
        last: bool = False,
        masked: bool = False,
        cut: bool = False,
        line: bytes = b"",
        octets: int = 0,
        has_nul: bool = False,
    ) -> None:
        self.verb: Final = verb
        """One of `KNOWN_VERBS`, `UNKNOWN_VERB`, or `END_OF_DATA` for the end of a message."""
        self.name: Final = name
        """HELO, EHLO, LHLO: the name given. AUTH: the mechanism. Else empty."""
        self.path: Final = path
        """MAIL FROM, RCPT TO; None where the line does not go on like that, and where it is `cut`."""
        self.size_bytes: Final = size_bytes
        """BDAT, XEXCH50: the count of raw bytes that follow. END_OF_DATA: the message's bytes on the wire,
        None where its beginning or end was not captured."""
        self.line: Final = line
        """MAIL and RCPT as sent, without the line end; empty for every other command, as it may hold a
        secret."""
        self.octets: Final = octets
        """Length of its line, the line end included, as far as it was read."""
        self.has_nul: Final = has_nul
        """A byte of zero is in its line."""
        self.last: Final = last
        """BDAT: the last chunk."""
        self.masked: Final = masked
        """STARTTLS: overwritten in flight."""
        self.cut: Final = cut
        """The rest of its line was lost, or is over the limit: nothing is known of its arguments."""

    @property
    def names_a_path(self) -> bool:
        """MAIL FROM or RCPT TO, as far as can be told; a bare MAIL, or MAIL TO, is neither."""
        return self.path is not None or self.cut


def text(raw: bytes) -> str:
    """Bytes from the wire as text; what is not UTF-8 is kept as `\\xNN`."""
    return raw.decode("utf-8", "backslashreplace")


def parse_command(line: bytes, *, whole: bool = True) -> Command:
    """Reads one command line.

    Args:
        line: without its line end, but with the carriage return if there is one.
        whole: False where the rest of the line was lost or is over the limit; then nothing is taken from
            its arguments that the rest could change.
    """
    octets, has_nul = len(line) + len(b"\n"), 0 in line
    line = line.removesuffix(b"\r")
    words = line.split(None, 1)  # at any white space: so "STARTTLS" CR CR LF is one, as it is to the servers
    head = words[0] if words else b""
    verb = _VERB_OF.get(head.upper())
    if verb is None:
        masked = MASKED_STARTTLS.match(head) is not None
        verb = "STARTTLS" if masked else UNKNOWN_VERB
        if head[:5].upper() in (b"MAIL:", b"RCPT:"):  # no server takes it, but it is what was meant
            verb = text(head[:4].upper())
        return Command(verb, masked=masked, octets=octets, has_nul=has_nul)
    argument = words[1].rstrip() if len(words) > 1 else b""
    if verb in AUTHENTICATORS:
        mechanism, *response = argument.split(None, 1)[:2] or [b""]
        name = _mechanism(mechanism) if whole or response else ""
        return Command(verb, name=name, octets=octets, has_nul=has_nul)
    if not whole:
        return Command(verb, cut=True, octets=octets, has_nul=has_nul)
    if verb in ("MAIL", "RCPT"):
        path = _path(_FROM if verb == "MAIL" else _TO, argument)
        return Command(verb, path=path, line=line, octets=octets, has_nul=has_nul)
    if verb in GREETINGS:
        return Command(verb, name=text(argument), octets=octets, has_nul=has_nul)
    size_bytes, last = None, False
    if verb == "BDAT":
        chunk = _BDAT.match(argument)
        if chunk is not None:
            size_bytes, last = int(chunk[1]), chunk[2] is not None
    elif verb == "XEXCH50":
        blob = _XEXCH50.match(argument)
        size_bytes = int(blob[1]) if blob is not None else None
    return Command(verb, size_bytes=size_bytes, last=last, octets=octets, has_nul=has_nul)


def line_limit_octets(verb: str) -> int:
    """The longest line that the standards allow for a command, CRLF included."""
    if verb in ("MAIL", "RCPT"):
        return MAIL_LINE_OCTETS
    return AUTH_LINE_OCTETS if verb in AUTHENTICATORS else COMMAND_LINE_OCTETS


def _mechanism(raw: bytes) -> str:
    """A mechanism's name; "OTHER" for what can't be one, as it may be a secret in the wrong place."""
    name = text(raw.upper())
    return name if name in SASL_MECHANISMS or _MECHANISM.match(raw) else "OTHER"


def _path(introduction: re.Pattern[bytes], argument: bytes) -> Path | None:
    start = introduction.match(argument)
    if start is None:
        return None
    rest = argument[start.end() :]
    address, end = _address(rest)
    if address.startswith(b"@"):
        route = _SOURCE_ROUTE.match(address)
        if route is not None:
            address = address[route.end() :]
    return Path(text(address), _params(rest[end:]) if end < len(rest) else NO_PARAMS)


def _address(rest: bytes) -> tuple[bytes, int]:
    """The address that an argument begins with, and where it ends."""
    if rest.startswith(b"<"):
        end = rest.find(b">")
        if end > 0 and rest.find(b'"', 0, end) < 0:  # nearly all are so simple
            return rest[1:end], end + 1
    bracketed = _BRACKET_PATH.match(rest) or _BRACKET_PATH_UNQUOTED.match(rest)
    if bracketed is not None:
        return bracketed[1], bracketed.end()
    bare = _BARE_PATH.match(rest)
    end = bare.end() if bare is not None else 0
    return rest[:end].lstrip(b"<"), end


def _params(rest: bytes) -> dict[str, str | None]:
    """`esmtp-param`s, RFC 5321 section 4.1.2."""
    params: dict[str, str | None] = {}
    for word in rest.split():
        keyword, equals, value = word.partition(b"=")
        params[text(keyword.upper())] = text(value) if equals else None
    return params
