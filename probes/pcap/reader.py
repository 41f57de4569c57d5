"""What the readers of pcap and of pcapng share: how they get on in the bytes, and where these end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from probes.frames import FrameDecoder
from probes.pcap.opening import CutShort, too_many_parts
from probes.segment import Segment

if TYPE_CHECKING:
    from mypy_extensions import i64  # an int, which mypyc keeps in a machine word


class CaptureReader:
    """Walks once over the uncompressed bytes of a capture, and has each frame decoded where it lies."""

    def __init__(
        self, pieces: Iterator[bytes], decoder: FrameDecoder, parts_max: Callable[[], int] | None = None
    ) -> None:
        """`parts_max`: how many frames, and whatever else takes a step, there may have been so far."""
        self.frames_read: i64 = 0
        self._others_read: i64 = 0
        self._parts_max = parts_max
        self._pieces = pieces
        self._decoder = decoder
        # The bytes at hand, and how far in them the walk has come.
        self._data = b""
        self._position: i64 = 0

    def read(self, limit: int, segments: list[Segment]) -> int:
        """Decodes up to `limit` frames into `segments`; says how many, none at the end.

        Raises CutShort, with `segments` and `frames_read` as far as it came.
        """
        before = self.frames_read
        try:
            self._walk(limit, segments)
        finally:
            self._decoder.settle()
        return self.frames_read - before

    def _walk(self, limit: i64, segments: list[Segment]) -> None:
        """The same for one format. Leaves `_position` behind the last frame."""
        raise NotImplementedError

    def _fetch(self, size: i64) -> bool:
        """Gets `size` bytes at least, from `_position` on, and makes it 0. False if there are none any more.

        Raises CutShort if there are some, but fewer, or if what came before was too much for where it came
        from.
        """
        parts_max = self._parts_max
        if parts_max is not None and self.frames_read + self._others_read > parts_max():
            raise too_many_parts()
        gathered = [self._data[self._position :]]
        held = len(gathered[0])
        try:
            while held < size and (piece := next(self._pieces, b"")):
                gathered.append(piece)
                held += len(piece)
        except OSError as error:
            raise CutShort(f"it can't be read any further ({error.strerror})") from error
        self._data = b"".join(gathered)
        self._position = 0
        if 0 < held < size:
            raise CutShort("it is cut short")
        return held > 0
