"""When is encryption established? When both sides sent application data after the handshake.

Up to TLS 1.2 the records say it themselves: type 23 is application data, and nothing else is.

In TLS 1.3 everything after the ServerHello is type 23: the rest of the handshake, alerts, tickets, data. What
stays visible is who spoke after whom, and how long each record was (RFC 8446 section 5.2 adds one byte for
the true type, and the tag). An alert is recognised by its length, and proves nothing. Of the others the turns
are counted, client first, one for each time that the other side speaks:

    client   its flight: a certificate perhaps, then Finished
    server   it has read that flight, and did not answer with an alert
    client   data
    server   it went on, and did not answer with an alert: established

A server may keep silent after the client's Finished, so a record which is exactly as long as a Finished
stands for the first two turns. Where the client offered early data (0-RTT) two more turns are asked for
instead, since such data comes before the server's flight is over. Where the ServerHello was not captured
nothing says which version this is, and the four turns are asked for: they suffice in every version.

Only positive evidence counts, so that lost records can delay the answer but never make it wrong.
"""

from typing import Final, NamedTuple

from monitor.side import Side
from monitor.tls.hellos import ServerHello
from monitor.tls.records import ALERT, APPLICATION_DATA

TLS_1_2: Final = 0x0303
TLS_1_3: Final = 0x0304

# An alert is two bytes, RFC 8446 section 6.
_ALERT_BYTES: Final = 2
# The header of a handshake message, RFC 8446 section 4.
_MESSAGE_HEADER_BYTES: Final = 4
# The true content type at the end of the plaintext, RFC 8446 section 5.2.
_INNER_TYPE_BYTES: Final = 1


class _Suite(NamedTuple):
    hash_bytes: int
    tag_bytes: int


# RFC 8446 appendix B.4; RFC 8998 section 2 for the two with SM4.
_TLS_1_3_SUITES: Final = {
    0x1301: _Suite(32, 16),
    0x1302: _Suite(48, 16),
    0x1303: _Suite(32, 16),
    0x1304: _Suite(32, 16),
    0x1305: _Suite(32, 8),
    0x00C6: _Suite(32, 16),
    0x00C7: _Suite(32, 16),
}
# With every tag that a suite of TLS 1.3 has.
_POSSIBLE_ALERT_LENGTHS: Final = frozenset(_ALERT_BYTES + _INNER_TYPE_BYTES + tag for tag in (8, 16))

_TURNS_OF_CLIENT_FLIGHT: Final = 2
_TURNS: Final = 4
_TURNS_AFTER_EARLY_DATA: Final = 6


class Establishment:
    """Follows the records of both sides until encryption is established."""

    __slots__ = (
        "_alert_lengths",
        "_finished_length",
        "_sent_data",
        "_turns",
        "_turns_needed",
        "_types_are_true",
        "encrypted_alert_seen",
        "established",
    )

    def __init__(self) -> None:
        self.established = False
        self.encrypted_alert_seen = False
        """An encrypted alert, whatever it says, came before anything was established."""
        # Type 23 is application data and nothing else: known to be TLS 1.2 or older.
        self._types_are_true = False
        self._sent_data = [False, False]
        self._alert_lengths = _POSSIBLE_ALERT_LENGTHS
        # Of the body of a client's record that holds a Finished and nothing else; 0 is no record's.
        self._finished_length = 0
        self._turns = 0
        self._turns_needed = _TURNS

    def server_hello(self, hello: ServerHello, early_data_offered: bool) -> None:
        """The ServerHello came (not a HelloRetryRequest): the records behind it are counted anew."""
        self._turns = 0
        if hello.version <= TLS_1_2:
            self._types_are_true = True
            return
        suite = _TLS_1_3_SUITES.get(hello.cipher) if hello.version == TLS_1_3 else None
        if suite:
            overhead = _INNER_TYPE_BYTES + suite.tag_bytes
            self._alert_lengths = frozenset((_ALERT_BYTES + overhead,))
            self._finished_length = _MESSAGE_HEADER_BYTES + suite.hash_bytes + overhead
        if early_data_offered:
            self._finished_length = 0
            self._turns_needed = _TURNS_AFTER_EARLY_DATA

    def record(self, side: Side, content_type: int, length: int) -> None:
        """A record of that side, its body `length` bytes long, came to its end."""
        if self.established:
            return
        if content_type == ALERT and length > _ALERT_BYTES:
            self.encrypted_alert_seen = True
        if content_type != APPLICATION_DATA:
            return
        if self._types_are_true:
            self._sent_data[side] = True
            self.established = all(self._sent_data)
        elif length in self._alert_lengths:
            self.encrypted_alert_seen = self.encrypted_alert_seen or len(self._alert_lengths) == 1
        elif (
            side is Side.CLIENT and length == self._finished_length and self._turns < _TURNS_OF_CLIENT_FLIGHT
        ):
            self._turns = _TURNS_OF_CLIENT_FLIGHT
        elif side is (Side.SERVER if self._turns % 2 else Side.CLIENT):
            self._turns += 1
            self.established = self._turns == self._turns_needed
