"""Capture files of what nobody's TCP would send, written as fast as they are read.

Frames are of link type RAW: they begin with their IPv4 header. Checksums are zero: no probe looks at them.
"""

import struct
from typing import IO, Final

from probes.segment import ACK, FIN, PSH, SYN

_FILE_HEADER: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 101)
_RECORD: Final = struct.Struct("<IIII")
_HEADERS: Final = struct.Struct("!BxHHHBBxxIIHHIIBBHxxxx")  # RFC 791 section 3.1, RFC 9293 section 3.1
_HEADERS_BYTES: Final = 40
_IP_HEADER: Final = struct.Struct("!BxHHHBBxxII")
_TCP: Final = 6
_BEGIN_US: Final = 1_790_000_000_000_000

End = tuple[int, int]
"""Address and port."""

_SERVER_ADDRESS: Final = 0xC0_00_02_01  # 192.0.2.1
SERVER: Final[End] = (_SERVER_ADDRESS, 25)
CLIENTS: Final = 0x0A_00_00_00  # 10.0.0.0/8
LARGEST_PAYLOAD_BYTES: Final = 65_535 - _HEADERS_BYTES
_FIRST_PORT: Final = 1_024
_PORTS: Final = 60_000
_MODULUS: Final = 1 << 32


class Tap:
    """Writes packets one after the other, `step_us` apart."""

    def __init__(self, file: IO[bytes], *, step_us: int) -> None:
        self._write = file.write
        self._write(_FILE_HEADER)
        self.at_us = _BEGIN_US
        self.step_us = step_us
        self.packets = 0

    def tcp(
        self,
        source: End,
        destination: End,
        numbers: tuple[int, int, int],
        data: bytes = b"",
    ) -> None:
        """`numbers`: the flags, the sequence number, the acknowledgement."""
        flags, sequence, acknowledgement = numbers
        length = _HEADERS_BYTES + len(data)
        self._record(
            _HEADERS.pack(
                *(0x45, length, 0, 0, 64, _TCP, source[0], destination[0]),
                *(
                    source[1],
                    destination[1],
                    sequence % _MODULUS,
                    acknowledgement % _MODULUS,
                    0x50,
                    flags,
                    0xFFFF,
                ),
            )
            + data
        )

    def fragment(self, source: int, identification: int, offset: int, data: bytes, *, more: bool) -> None:
        """Of a datagram to the server; `offset` in bytes, a multiple of 8."""
        header = _IP_HEADER.pack(
            *(
                0x45,
                20 + len(data),
                identification,
                more << 13 | offset >> 3,
                64,
                _TCP,
                source,
                _SERVER_ADDRESS,
            )
        )
        self._record(header + data)

    def _record(self, packet: bytes) -> None:
        self.packets += 1
        self.at_us += self.step_us
        self._write(_RECORD.pack(*divmod(self.at_us, 1_000_000), len(packet), len(packet)) + packet)


class Connection:
    """A client and the server. Each call sends a packet, which acknowledges all before it."""

    def __init__(self, tap: Tap, number: int) -> None:
        """The same number is the same address and port pair."""
        self._tap = tap
        self.client = (CLIENTS + number // _PORTS, _FIRST_PORT + number % _PORTS)
        self.sent = 1_000 + number
        """The client's next sequence number."""
        self.received = 77_000 + number
        """The server's."""

    def open(self) -> None:
        self._tap.tcp(self.client, SERVER, (SYN, self.sent, 0))
        self.sent += 1
        self._tap.tcp(SERVER, self.client, (SYN | ACK, self.received, self.sent))
        self.received += 1
        self.say()

    def say(self, data: bytes = b"", flags: int = ACK | PSH) -> None:
        self._tap.tcp(self.client, SERVER, (flags, self.sent, self.received), data)
        self.sent += len(data) + bool(flags & FIN)

    def hear(self, data: bytes = b"", flags: int = ACK | PSH) -> None:
        self._tap.tcp(SERVER, self.client, (flags, self.received, self.sent), data)
        self.received += len(data) + bool(flags & FIN)

    def close(self) -> None:
        self.say(flags=ACK | FIN)
        self.hear(flags=ACK | FIN)
        self.say()

    def greet(self) -> None:
        self.open()
        self.hear(b"220 mx.example.test ESMTP\r\n")

    def send_mail(self, sender: str) -> None:
        """A whole session of an ordinary client, in clear."""
        self.greet()
        for command, reply in (
            (b"EHLO client.example", b"250-mx.example.test\r\n250 8BITMIME"),
            (b"MAIL FROM:<" + sender.encode() + b">", b"250 2.1.0 Ok"),
            (b"RCPT TO:<user@example.test>", b"250 2.1.5 Ok"),
            (b"DATA", b"354 End data with <CR><LF>.<CR><LF>"),
            (b"Subject: x\r\n\r\nHello.\r\n.", b"250 2.0.0 Ok"),
            (b"QUIT", b"221 2.0.0 Bye"),
        ):
            self.say(command + b"\r\n")
            self.hear(reply + b"\r\n")
        self.close()
