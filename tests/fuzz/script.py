"""The bytes of an input as a script, read front to back. It never ends too soon: it goes on with zeros."""


class Script:
    """Mutating such bytes anywhere leaves most of the script as it was: lengths stand beside what they
    measure, and a line needs none."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        return self.number(1)

    def number(self, size: int) -> int:
        """Big-endian, without sign."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def take(self, size: int) -> bytes:
        """So many bytes, or fewer at the end."""
        begin = self._at
        self._at = min(begin + size, len(self._data))
        return self._data[begin : self._at]

    def piece(self) -> bytes:
        """With a byte of length before it."""
        return self.take(self.byte())

    def long_piece(self) -> bytes:
        """With two bytes of length before it."""
        return self.take(self.number(2))

    def line(self) -> bytes:
        """Up to the next line feed, that included."""
        end = self._data.find(b"\n", self._at)
        return self.take((end + 1 if end >= 0 else len(self._data)) - self._at)

    def rest(self) -> bytes:
        return self.take(len(self._data))


def piece(data: bytes) -> bytes:
    """As `Script.piece` reads it."""
    return bytes((len(data),)) + data


def long_piece(data: bytes) -> bytes:
    """As `Script.long_piece` reads it."""
    return len(data).to_bytes(2, "big") + data
