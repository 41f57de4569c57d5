"""The messages in one direction's handshake records: the hello is collected, the others are skipped.

Several messages may share a record, and one may span several (RFC 8446 section 5.1).
"""

from typing import Final

# A message's type and length, RFC 8446 section 4.
MESSAGE_HEADER_BYTES: Final = 4

# Chosen because a ClientHello with post-quantum key shares is 2 kB, and the one list in a hello that may grow
# without need, its extensions, is no longer than 2**16 - 1 bytes (RFC 8446 section 4.1.2).
MAX_HELLO_BYTES: Final = 65_536


class HelloCollector:
    """Collects messages of one type out of handshake records."""

    __slots__ = ("_buffer", "_message_type", "_skip", "wanted")

    def __init__(self, message_type: int) -> None:
        self._message_type = message_type
        self._buffer = bytearray()
        # Bytes still to come of a message that is not wanted.
        self._skip = 0
        self.wanted = True
        """Whether anything is still collected."""

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer)

    def receive(self, fragment: bytes) -> bytes | None:
        """Takes the next bytes of handshake records. Returns the body of a message of the wanted type; what
        stood behind it in the same fragment is dropped, since no second hello stands there."""
        if not self.wanted:
            return None
        skipped = min(self._skip, len(fragment))
        self._skip -= skipped
        buffer = self._buffer
        buffer += fragment[skipped:]
        while len(buffer) >= MESSAGE_HEADER_BYTES:
            end = MESSAGE_HEADER_BYTES + int.from_bytes(buffer[1:MESSAGE_HEADER_BYTES], "big")
            if buffer[0] == self._message_type:
                if end > MAX_HELLO_BYTES:
                    self.stop()
                    return None
                if end > len(buffer):
                    return None
                body = bytes(buffer[MESSAGE_HEADER_BYTES:end])
                buffer.clear()
                return body
            self._skip = max(0, end - len(buffer))
            del buffer[:end]
        return None

    def lost(self, length: int) -> bool:
        """Bytes of handshake records were lost. False where a hello may have been in them."""
        if not self.wanted:
            return True
        if length <= self._skip:
            self._skip -= length
            return True
        self.stop()
        return False

    def restart(self) -> None:
        """Framing was lost: what was begun is never completed, but a hello may still come."""
        self._skip = 0
        self._buffer.clear()

    def stop(self) -> None:
        """Collects nothing more."""
        self.wanted = False
        self._buffer = bytearray()
