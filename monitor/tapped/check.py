"""The monitor checks itself: what it says of a session from the packets, held against what the server
decrypted.

Only what is definite on both sides can contradict: a stream seen whole, and no verdict that is `unknown`.
Each rule leaves room for what ordinary sessions do, so that it never speaks of a right verdict;
docs/metrics.md has them in words.
"""

from typing import Final

from monitor.sessions.record import Channel
from monitor.sessions.site import Outside
from monitor.tapped.stream import TappedStream

EXCHANGES_THAT_PROVE: Final = 3
"""How often the server must have read and answered for the packets to show it without doubt:
monitor.tls.establishment asks for six turns at most, which are three of these. A client may close before it
has said so much, and then the handshake may look as if it had come to nothing."""


def is_contradicted(outside: Outside, stream: TappedStream) -> bool:
    """`stream`: seen whole, of the same session."""
    if outside.ruled_out and stream.exchanges >= EXCHANGES_THAT_PROVE:
        return True  # both sides spoke inside TLS
    if stream.greeted is True and outside.channel is Channel.STARTTLS:
        return True  # the server greets once, and did so in clear
    if stream.greeted is False and outside.channel is Channel.IMPLICIT_TLS:
        return True
    # Nobody compresses any more (RFC 9325 section 3.3), so the ciphertext is the longer.
    return outside.whole and stream.plain_bytes > outside.encrypted_bytes
