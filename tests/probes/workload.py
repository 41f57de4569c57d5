"""A known number of TCP connections of all sizes, between two namespaces or within one."""

import random
import socket
from typing import Final

from tests.lab.network import Namespace
from tests.probes.cross_check import PORT

# Prime numbers, so that no doubling or rounding hides.
CONNECTIONS: Final = 31
# A byte, a line, the sizes of record that the filter reserves and their neighbours, more than a packet holds.
SIZES: Final = (1, 73, 256, 257, 1448, 1536, 1537, 4097, 16385, 65_536, 200_003)
TIMEOUT_SECONDS: Final = 5

Option = tuple[int, int, bytes]


def converse(
    server: Namespace,
    client: Namespace,
    address: str,
    *,
    port: int = PORT,
    connections: int = CONNECTIONS,
    sizes: tuple[int, ...] = SIZES,
    options: tuple[Option, ...] = (),
) -> None:
    """Makes connections one after another; in each, the client sends something and gets it back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    octets = random.Random(connections)
    with server.threads(1) as servers, client.threads(1) as clients:
        listener = servers.submit(socket.create_server, (address, port), family=family).result()
        listener.settimeout(TIMEOUT_SECONDS)
        with listener:
            for number in range(connections):
                sent = octets.randbytes(sizes[number % len(sizes)])
                answering = servers.submit(_answer, listener)
                returned = clients.submit(_ask, family, (address, port), sent, options).result()
                answering.result()
                assert returned == sent


def _answer(listener: socket.socket) -> None:
    accepted, _ = listener.accept()
    with accepted:
        accepted.settimeout(TIMEOUT_SECONDS)
        heard = _read_all(accepted)
        accepted.sendall(heard)


def _ask(
    family: socket.AddressFamily, server: tuple[str, int], sent: bytes, options: tuple[Option, ...]
) -> bytes:
    with socket.socket(family, socket.SOCK_STREAM) as asking:
        asking.settimeout(TIMEOUT_SECONDS)
        for option in options:
            asking.setsockopt(*option)
        asking.connect(server)
        asking.sendall(sent)
        asking.shutdown(socket.SHUT_WR)
        return _read_all(asking)


def _read_all(peer: socket.socket) -> bytes:
    heard = bytearray()
    while more := peer.recv(1 << 18):
        heard += more
    return bytes(heard)
