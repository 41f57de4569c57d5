"""What the tap saw of a connection inside TLS: an event at a time, in the order in which the server acted."""

from enum import IntEnum

from msgspec import Struct


class Kind(IntEnum):
    """What happened; the numbers are those of `enum kind` in stream.c."""

    BEGUN = 1
    """The TLS handshake succeeded: the server reads and writes from now on. Number 0 of a stream that was
    seen from its beginning; one without it was joined on its way."""
    COMMANDS = 2
    """The server read `text` of the client: a piece of a command line, or the whole. What follows the
    mechanism of an AUTH is left out, and so is all but the line feed of a line whose verb is none of those
    that mail needs."""
    REPLY = 3
    """The server has written the last line of a reply: `text` is its code, three bytes. The words are left
    out, and so are the lines before."""
    MESSAGE = 4
    """The server read a message after DATA, `length` bytes with the line that ends it."""
    CHUNK = 5
    """The server read the whole of a BDAT chunk of `length` bytes."""
    LOST = 6
    """The server read `length` bytes, of no other event, of which the tap can't tell what they were: commands
    may be among them. So are bytes that came behind AUTH or DATA before the reply. It may be the last that is
    told of the stream."""
    ENDED = 7
    """The server has freed what the library kept of the connection."""
    CLOSED = 8
    """The server found that the client has gone, or has ended TLS. Not every library tells."""


class TapEvent(Struct, frozen=True, gc=False):
    at_ns: int
    """When: nanoseconds since the epoch, UTC, by the clock of the eBPF probe's segments."""
    flow: bytes
    """From the client to the server, as in `probes.segment.Segment`: an IPv4 address has 4 bytes, whatever
    the server's socket is."""
    cookie: int
    """The kernel's name for the socket. No other socket has it until the machine restarts."""
    number: int
    """Of this event in its stream, from 0 on. Where numbers are missing, so are events: the ring buffer was
    full."""
    kind: Kind
    length: int = 0
    text: bytes = b""
    is_unsure: bool = False
    """The bytes may belong to another connection: the server took them off its socket somewhere else than
    where it decrypted them."""
