"""Whose bytes they are: many connections at once, and servers that read their sockets in different ways.

Each client names its own port in what it says, so that a mistake shows.
"""

import asyncio
import os
import select
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from queue import Empty, LifoQueue, SimpleQueue
from typing import Final

import pytest

from probes.segment import ends
from probes.tls_tap.event import Kind, TapEvent
from tests.probes.tls_tap.scripted import TapAndServer

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="probes in the kernel need root"),
]

CLIENTS: Final = 30
MESSAGES: Final = 5


@pytest.fixture(scope="module")
def tapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TapAndServer]:
    made = TapAndServer(tmp_path_factory.mktemp("tap"))
    yield made
    made.close()


Told = dict[tuple[bytes, int], list[TapEvent]]


def told_of_all(tapped: TapAndServer, drive: Callable[[], None], *, wait: bool = True) -> Told:
    """By connection."""
    events: list[TapEvent] = tapped.tap.take()
    events.clear()
    drive()

    def all_have_ended() -> bool:
        events.extend(tapped.tap.take())
        return sum(event.kind is Kind.ENDED for event in events) >= CLIENTS

    deadline = time.monotonic() + 20
    while not all_have_ended() and wait:
        assert time.monotonic() < deadline, len(events)
        time.sleep(0.02)
    told: Told = defaultdict(list)
    for event in events:
        told[event.flow, event.cookie].append(event)
    return told


def run_clients(tapped: TapAndServer) -> None:
    threads = [threading.Thread(target=run_client, args=(tapped,)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)


def run_client(tapped: TapAndServer) -> None:
    with tapped.connect() as client:
        own = client.getsockname()[1]
        for number in range(MESSAGES):
            client.sendall(b"MAIL FROM:<%d.%d@client.test>\r\n" % (own, number))
            assert client.recv(100) == b"250 Ok\r\n"


def expected(flow: bytes) -> bytes:
    (_, port), _ = ends(flow)
    return b"".join(b"MAIL FROM:<%d.%d@client.test>\r\n" % (port, number) for number in range(MESSAGES))


def text_of(events: list[TapEvent]) -> bytes:
    return b"".join(event.text for event in events if event.kind is Kind.COMMANDS)


def is_right(told: Told) -> bool:
    return all(text_of(events) == expected(flow) for (flow, _), events in told.items())


def test_a_thread_for_each_connection(tapped: TapAndServer) -> None:
    told = told_of_all(tapped, lambda: with_server(tapped, serve_in_threads))
    assert len(told) == CLIENTS
    assert is_right(told)
    assert not any(event.is_unsure for events in told.values() for event in events)


def test_one_thread_that_waits_for_all_connections_and_reads_them_itself(tapped: TapAndServer) -> None:
    """asyncio: OpenSSL never sees a socket."""
    told = told_of_all(tapped, lambda: with_server(tapped, serve_with_asyncio))
    assert len(told) == CLIENTS
    assert is_right(told)
    assert not any(event.is_unsure for events in told.values() for event in events)


def test_threads_that_read_for_each_other_are_not_guessed_at(tapped: TapAndServer) -> None:
    """Each reads some socket, and then decrypts what another has read."""
    told = told_of_all(tapped, lambda: with_server(tapped, serve_with_a_pool), wait=False)
    assert told
    sure = {key: events for key, events in told.items() if not any(event.is_unsure for event in events)}
    assert is_right(sure)


def with_server(tapped: TapAndServer, serve: Callable[[TapAndServer], None]) -> None:
    server = threading.Thread(target=serve, args=(tapped,))
    server.start()
    run_clients(tapped)
    server.join(20)


def serve_in_threads(tapped: TapAndServer) -> None:
    def answer(connection: socket.socket) -> None:
        with connection, tapped.context.wrap_socket(connection, server_side=True) as server:
            while server.recv(4_096):
                server.sendall(b"250 Ok\r\n")

    threads = [threading.Thread(target=answer, args=(tapped.accept(),)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)


def serve_with_asyncio(tapped: TapAndServer) -> None:
    ended = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ended
        while await reader.read(4_096):
            writer.write(b"250 Ok\r\n")
            await writer.drain()
        writer.close()
        ended += 1

    async def run() -> None:
        listener = tapped.listener.dup()
        async with await asyncio.start_server(answer, sock=listener, ssl=tapped.context):
            while ended < CLIENTS:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)

    asyncio.run(run())
    tapped.listener.setblocking(True)  # what is set on the one is set on the other


class Fed:
    """A connection whose bytes one thread reads and any other decrypts."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_shaken = False

    def decrypt(self, data: bytes) -> None:
        with self.lock:
            self._incoming.write(data)
            try:
                if not self._is_shaken:
                    self._tls.do_handshake()
                    self._is_shaken = True
                while self._tls.read(4_096):
                    self._tls.write(b"250 Ok\r\n")
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                pass
            self.connection.sendall(self._outgoing.read())


def serve_with_a_pool(tapped: TapAndServer) -> None:
    all_of_them = [Fed(tapped.accept(), tapped.context) for _ in range(CLIENTS)]
    readable: SimpleQueue[Fed] = SimpleQueue()
    encrypted: LifoQueue[tuple[Fed, bytes]] = LifoQueue()  # who comes first gets what another read
    left = CLIENTS

    def work() -> None:
        nonlocal left
        while left > 0:
            try:
                fed = readable.get(timeout=0.01)
            except Empty:
                pass
            else:
                encrypted.put((fed, fed.connection.recv(16_384)))
            time.sleep(0.002)
            try:
                fed, data = encrypted.get(timeout=0.01)
            except Empty:
                continue
            if data:
                fed.decrypt(data)
                waiting[fed.connection.fileno()] = fed
            else:
                left -= 1

    waiting = {fed.connection.fileno(): fed for fed in all_of_them}
    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 20
    while left > 0 and time.monotonic() < deadline:
        for descriptor in select.select(list(waiting), [], [], 0.01)[0]:
            readable.put(waiting.pop(descriptor))
    for worker in workers:
        worker.join(20)
    for fed in all_of_them:
        fed.connection.close()
