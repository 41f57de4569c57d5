"""The kernel's end of the ring buffer, read where it lies: many records at a time.

bcc and libbpf call a function for each record, which from Python costs more than all that is done with it.
Here a poll takes all records that are ready as one piece of bytes. The layout is the kernel's
(Documentation/bpf/ringbuf.rst, kernel/bpf/ringbuf.c): a page with the reader's position, a page with the
writer's, and the data. Behind them stand the same data once more, so that a record which goes on at the
beginning can be read in one piece. We don't map these, as every mapped page counts as resident, and put such
a record together.

The kernel writes on another processor meanwhile. Some processors, such as arm64's, carry out reads and writes
in another order than the program has them. So `take` says three times where the order matters.
"""

import mmap
import select
from threading import Lock
from typing import Final

_PAGE: Final = mmap.PAGESIZE
_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
HEADER_BYTES: Final = 8
"""Before each record: its length with two flags, and a number of the kernel's own."""


class Ring:
    """Reads a map of the type BPF_MAP_TYPE_RINGBUF. For one thread."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        """`size_bytes` is the map's, a power of 2."""
        self._size_bytes = size_bytes
        self._reader_page = mmap.mmap(descriptor, _PAGE)
        self._shown = mmap.mmap(
            descriptor, _PAGE + size_bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=_PAGE
        )
        self._reader_position = memoryview(self._reader_page).cast("Q")
        self._writer_position = memoryview(self._shown).cast("Q")
        self._words = memoryview(self._shown).cast("I")
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._barrier = Lock()
        self._barrier.acquire()

    def wait(self, timeout_seconds: float) -> None:
        """Until there is a record, or for so long."""
        self._poll.poll(timeout_seconds * 1000)

    def take(self, limit_bytes: int) -> bytes:
        """All records that are ready, each with its header, but hardly more than so many bytes. They make
        room for others."""
        begin = self._reader_position[0]
        end = self._writer_position[0]
        if end == begin:
            return b""
        self._keep_order()  # no length is read before the kernel has written it
        mask = self._size_bytes - 1
        words = self._words
        position = begin
        stop = min(end, begin + limit_bytes)
        while position < stop:
            length = words[(_PAGE + (position & mask)) >> 2]
            if length & _BUSY:
                break
            position += (length & ~_DISCARDED) + HEADER_BYTES + 7 & ~7
        if position == begin:
            return b""
        self._keep_order()  # a record's bytes are there before its flag is gone
        offset = _PAGE + (begin & mask)
        until = offset + position - begin
        taken = self._shown[offset:until]
        beyond = until - (_PAGE + self._size_bytes)
        if beyond > 0:
            taken += self._shown[_PAGE : _PAGE + beyond]
        self._keep_order()  # the kernel overwrites what this gives back
        self._reader_position[0] = position
        return taken

    def _keep_order(self) -> None:
        """What stands before it in the program has happened before what stands behind it.

        POSIX promises that of locks ("Memory Synchronization", XBD 4.12), and Python has no other barrier.
        """
        self._barrier.release()
        self._barrier.acquire()

    def close(self) -> None:
        """May be called twice."""
        for view in (self._reader_position, self._writer_position, self._words):
            view.release()
        self._reader_page.close()
        self._shown.close()
