"""Reply lines -> `Reply`. RFC 5321 section 4.2; multi-line replies, section 4.2.1."""

import re
from typing import Final

from mypy_extensions import mypyc_attr

from monitor.smtp.grammar import text

REPLY_LINE_OCTETS: Final = 512  # RFC 5321 section 4.5.3.1.5, CRLF included
KEPT_LINES: Final = 64
"""Lines of one reply that are kept: four times the longest in the captures (13, an EHLO reply)."""
KEPT_LINE_BYTES: Final = 1_024
"""Bytes of a line's text that are kept: twice what RFC 5321 allows."""
_SEPARATORS: Final = frozenset({b"", b" ", b"\t", b"-"})
KEPT_REPLY_BYTES: Final = 4 + KEPT_LINE_BYTES  # the same with code and separator

# Reply-line: the code, then a blank, a hyphen or nothing at all ("250" alone).
_REPLY_LINE: Final = re.compile(rb"\d{3}(?:[ \t-]|\Z)")
_ZERO: Final = ord("0")
_CHALLENGE: Final = 334
"""RFC 4954 section 4. Its text is a part of the AUTH exchange, and not kept."""


@mypyc_attr(acyclic=True)
class Reply:
    """One reply, of one or more lines."""

    __slots__ = ("_keywords", "code", "lines", "whole")

    def __init__(self, code: int, lines: tuple[bytes, ...] = (), whole: bool = True) -> None:
        self.code: Final = code
        """Any three digits; its class is the first of them, and unknown codes are as good as known ones."""
        self.lines: Final = lines
        """Each line behind its code and separator."""
        self.whole: Final = whole
        """False where a part of it was lost, or is over the limit."""
        self._keywords: frozenset[bytes] | None = None

    @property
    def positive(self) -> bool:
        return self.code // 100 == 2

    @property
    def intermediate(self) -> bool:
        return self.code // 100 == 3

    @property
    def text(self) -> str:
        return text(b"\n".join(self.lines))

    def keywords(self) -> frozenset[bytes]:
        """EHLO: the first words of all lines but the first, in upper case. RFC 5321 section 4.1.1.1."""
        if self._keywords is None:
            text = b"\n".join(self.lines[1:]).replace(b"=", b" ").upper()
            words = [line.split(None, 1) for line in text.split(b"\n")]
            self._keywords = frozenset([word[0] for word in words if word])
        return self._keywords


@mypyc_attr(acyclic=True)
class ReplyReader:
    """Assembles reply lines. Bounded: what a reply has beyond `KEPT_LINES` is read and forgotten."""

    __slots__ = ("_code", "_lines", "_whole")

    def __init__(self) -> None:
        self._code: int | None = None
        self._lines: tuple[bytes, ...] = ()
        self._whole = True

    @property
    def buffered_bytes(self) -> int:
        return sum([len(line) for line in self._lines]) if self._lines else 0

    @property
    def midway(self) -> bool:
        """Between the lines of a reply."""
        return self._code is not None

    @property
    def damaged(self) -> bool:
        """Between the lines of a reply of which a part was lost."""
        return self._code is not None and not self._whole

    def line(self, line: bytes) -> list[Reply] | None:
        """Takes a line without its line end.

        Returns:
            The replies that it ends: none, one, or two where a part of the first was lost. None where the
            line is no reply line.
        """
        code = _reply_code(line)
        if code is None:
            return None
        separator = line[3:4]
        ended: list[Reply] = []
        if self._code is not None and code != self._code:
            # RFC 5321 section 4.2.1: all lines of a reply have the same code. The end of that one was lost,
            # or the server broke the rule; either way this line belongs to another.
            ended.append(Reply(self._code, self._lines, whole=False))
            self._forget()
        start = 4 if separator in _SEPARATORS else 3
        text_kept = b"" if code == _CHALLENGE else line[start : start + KEPT_LINE_BYTES]
        if self._code is None and separator != b"-":
            ended.append(Reply(code, (text_kept,)))
            return ended
        self._code = code
        self._keep(text_kept)
        if separator != b"-":
            ended.append(Reply(code, self._lines, self._whole))
            self._forget()
        return ended

    def lost(self, cut_line: bytes) -> Reply | None:
        """Bytes were lost, and the beginning of a line before them was this.

        A code whose separator was seen counts: the same code stands on every line of the reply.

        Returns:
            The reply before it, where that line shows that its own end was lost earlier.
        """
        before = None
        if len(cut_line) >= 4 and _REPLY_LINE.match(cut_line):
            if self._code is not None and self._code != int(cut_line[:3]):
                before = self.rest()
            self._code = int(cut_line[:3])
            self._keep(b"")  # its text is cut, so none of it is kept; but a line stood here
        self._whole = False
        return before

    def rest(self) -> Reply | None:
        """What was begun and won't be ended: the reply whose last line was lost, or None."""
        reply = Reply(self._code, self._lines, whole=False) if self._code is not None else None
        self._forget()
        return reply

    def _keep(self, line: bytes) -> None:
        if len(self._lines) < KEPT_LINES:
            self._lines += (line,)
        else:
            self._whole = False

    def _forget(self) -> None:
        self._code = None
        self._lines = ()
        self._whole = True


def _reply_code(line: bytes) -> int | None:
    """The three digits that a reply line begins with, and no fourth.

    What clients take for a reply line is one here, too ("250Ok"): it is somebody's reply, and if it were
    passed over, the next reply would be taken for it.
    """
    if len(line) < 3:
        return None
    first, second, third = line[0], line[1], line[2]
    if not (_is_digit(first) and _is_digit(second) and _is_digit(third)):
        return None
    if len(line) > 3 and _is_digit(line[3]):
        return None
    return (first - _ZERO) * 100 + (second - _ZERO) * 10 + third - _ZERO


def _is_digit(octet: int) -> bool:
    return 0 <= octet - _ZERO <= 9


def looks_like_reply(data: bytes) -> bool:
    """Could a reply line begin here? Asked where bytes before were lost."""
    return len(data) >= 4 and _REPLY_LINE.match(data) is not None
