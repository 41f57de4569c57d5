"""Scrapes without a pause until it is terminated:
`python -m tests.bench.scrape_client HOST PORT reads|hangs-up clear|tls [USER:PASSWORD...]`.

`reads` waits for each answer and reads all of it; `hangs-up` sends its complete request and is gone. Of
several passwords each request has the next; `*` in one is another text each time. Then it says how many
requests it sent, and how many were answered with 200.
"""

import base64
import itertools
import json
import signal
import socket
import ssl
import struct
import sys
from collections.abc import Iterator
from typing import Final

from tests.bench.mail_client import any_certificate

_TIMEOUT_SECONDS: Final = 20.0
# Shorter than the second after which the kernel asks again where the server's queue was full.
_IMPATIENT_SECONDS: Final = 0.05
# A reset at the end: a port in TIME_WAIT could not be taken again for a minute.
_NO_TIME_WAIT: Final = struct.pack("ii", 1, 0)


class _Ended(Exception):
    """By a signal."""


def requests(credentials: list[str]) -> Iterator[bytes]:
    for number in itertools.count():
        header = b""
        if credentials:
            known = credentials[number % len(credentials)].replace("*", str(number))
            header = b"Authorization: Basic " + base64.b64encode(known.encode()) + b"\r\n"
        yield b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n" + header + b"\r\n"


def ask(where: tuple[str, int], request: bytes, context: ssl.SSLContext | None, *, reads: bool) -> bool:
    """Whether it was answered with 200."""
    with socket.create_connection(where, _TIMEOUT_SECONDS if reads else _IMPATIENT_SECONDS) as plain:
        plain.settimeout(_TIMEOUT_SECONDS)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_TIME_WAIT)
        connection = plain if context is None else context.wrap_socket(plain)
        with connection:
            connection.sendall(request)
            if not reads:
                return False
            answer = connection.recv(65536)
            while connection.recv(65536):
                pass
            return answer.startswith(b"HTTP/1.1 200")


def main() -> None:
    host, port, manners, channel, *credentials = sys.argv[1:]
    context = any_certificate() if channel == "tls" else None
    sent = answered = 0

    def end(*_: object) -> None:
        raise _Ended

    signal.signal(signal.SIGTERM, end)
    try:
        for request in requests(credentials):
            try:
                answered += ask((host, int(port)), request, context, reads=manners == "reads")
            except OSError:  # refused, reset, or not in time
                continue
            finally:
                sent += 1
    except _Ended:
        pass
    print(json.dumps({"sent": sent, "answered": answered}))


if __name__ == "__main__":
    main()
