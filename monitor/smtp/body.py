"""Where the message after DATA ends: CRLF "." CRLF, RFC 5321 section 4.1.1.4.

Some servers also take a line feed alone for a line end, and so end the message at `LF . LF` and its kin: the
hole that SMTP smuggling creeps through (CVE-2023-51764, -51765, -51766). Only the server knows whether it
did. So such an end is remembered with what follows it, and it becomes the end if the server replies before
the true end came.

The bytes themselves are forgotten at once, but for the last four.
"""

from typing import Final

from mypy_extensions import mypyc_attr

KEPT_AFTER_LOOSE_END_BYTES: Final = 16_384
"""How much behind a loose end is kept for the case that it was the end: chosen to hold any pipelined group of
commands; a message that goes on beyond it is simply a message that goes on."""


@mypyc_attr(acyclic=True)
class BodyReader:
    """Follows one message, in pieces of any size."""

    __slots__ = ("_after_loose_end", "_tail", "loose_end_bytes", "wire_bytes")

    def __init__(self) -> None:
        self.wire_bytes = 0
        """Bytes of the message so far, lost ones included."""
        self.loose_end_bytes: int | None = None
        """`wire_bytes` at the last loose end; None where there was none, or too much followed."""
        # The line end of the DATA line counts: a message of no lines at all is "." CRLF.
        self._tail = b"\r\n"
        self._after_loose_end = b""

    @property
    def buffered_bytes(self) -> int:
        return len(self._after_loose_end)

    def feed(self, data: bytes) -> int | None:
        """Takes the next bytes. Returns how many of them belong to the message if it ends here, else None."""
        tail = self._tail
        if self.loose_end_bytes is None and b"\n." not in data and b"\n." not in tail + data[:1]:
            # Almost every piece is like that.
            self.wire_bytes += len(data)
            self._tail = data[-4:] if len(data) >= 4 else (tail + data)[-4:]
            return None
        tail_length = len(tail)
        window = tail + data
        used = None
        if b"\n." in window:
            end = window.find(b"\r\n.\r\n")
            if end >= 0:
                used = end + 5 - tail_length
                window = window[:end]
            self._look_for_loose_end(window, tail_length)
        else:
            self._keep_after_loose_end(data)
        self.wire_bytes += len(data) if used is None else used
        self._tail = window[-4:]
        return used

    def left_out(self, length: int, edge: bytes) -> None:
        """`length` bytes of the message were not looked at: no end is in them. `edge`: the last of them."""
        self.wire_bytes += length
        self._tail = edge
        self._drop_loose_end()  # too much followed

    def lost(self, length: int) -> None:
        """`length` bytes of the message were lost."""
        self.wire_bytes += length
        self._tail = b""
        self._drop_loose_end()

    def take_after_loose_end(self) -> bytes:
        """What followed the loose end which turned out to be the end."""
        rest = self._after_loose_end
        self._drop_loose_end()
        return rest

    def _look_for_loose_end(self, window: bytes, tail_length: int) -> None:
        """`window`: the last bytes seen before, `tail_length` of them, and then the new ones."""
        found = max(window.rfind(b"\n.\n"), window.rfind(b"\n.\r\n"))
        used = found + (3 if window[found + 2 : found + 3] == b"\n" else 4) - tail_length
        if found < 0 or used <= 0:  # none, or in the piece before
            self._keep_after_loose_end(window[tail_length:])
            return
        self.loose_end_bytes = self.wire_bytes + used
        self._after_loose_end = b""
        self._keep_after_loose_end(window[tail_length + used :])

    def _keep_after_loose_end(self, data: bytes) -> None:
        if self.loose_end_bytes is None:
            return
        if len(self._after_loose_end) + len(data) > KEPT_AFTER_LOOSE_END_BYTES:
            self._drop_loose_end()
        else:
            self._after_loose_end += data

    def _drop_loose_end(self) -> None:
        self.loose_end_bytes = None
        self._after_loose_end = b""
