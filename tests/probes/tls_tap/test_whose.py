"""Whose bytes they are: many connections at once, and servers that read their sockets in different ways.

Each client names its own port in what it says, so that a mistake shows.
"""

import asyncio
import contextlib
import ctypes
import os
import select
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from queue import Empty, LifoQueue, Queue
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


def test_a_client_in_the_same_thread_is_not_taken_for_whom_it_serves(tapped: TapAndServer) -> None:
    """It talks in clear with its own client, and then through a memory BIO inside TLS with another server."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        other = threading.Thread(target=answer_elsewhere, args=(elsewhere, tapped.context))
        other.start()
        with socket.create_connection(("127.0.0.1", tapped.port)) as client, tapped.accept() as served:
            client.sendall(b"EHLO client.test\r\n")
            assert served.recv(100)
            ask_elsewhere(elsewhere.getsockname())
        other.join(20)
    assert [event for event in tapped.tap.take() if event.kind is not Kind.ENDED] == []


def answer_elsewhere(listener: socket.socket, context: ssl.SSLContext) -> None:
    connection, _ = listener.accept()
    with connection, context.wrap_socket(connection, server_side=True) as server:
        server.sendall(b"220 elsewhere\r\n")
        server.recv(100)


def ask_elsewhere(address: tuple[str, int]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    with socket.create_connection(address, 5) as connection:
        for step in (tls.do_handshake, tls.read):
            while True:
                try:
                    step()
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    incoming.write(connection.recv(16_384))
                else:
                    break
        tls.write(b"RCPT TO:<b@elsewhere.test>\r\n")
        connection.sendall(outgoing.read())


def test_a_session_of_the_library_that_is_cleared_and_used_again_is_another_connection(
    tapped: TapAndServer,
) -> None:
    told = told_of_all(tapped, lambda: with_server(tapped, serve_with_one_session), wait=False)
    assert len(told) == CLIENTS
    assert is_right(told)
    assert not any(event.is_unsure for events in told.values() for event in events)


def test_a_library_that_finds_nothing_to_read_at_first_is_not_fed(tapped: TapAndServer) -> None:
    """After STARTTLS: what was read last, the program has read itself."""
    server = threading.Thread(target=serve_after_starttls, args=(tapped,))
    server.start()
    with socket.create_connection(("127.0.0.1", tapped.port), 5) as plain:
        plain.sendall(b"STARTTLS\r\n")
        assert plain.recv(100)
        with tapped.client_context.wrap_socket(plain) as client:
            client.sendall(b"QUIT\r\n")
            assert client.recv(100)
    server.join(20)
    kinds = [event.kind for event in tapped.tap.take()]
    assert kinds == [Kind.BEGUN, Kind.COMMANDS, Kind.REPLY, Kind.ENDED]


def serve_after_starttls(tapped: TapAndServer) -> None:
    connection = tapped.accept()
    assert connection.recv(100)
    wrapped = tapped.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    with wrapped as server:
        server.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            server.do_handshake()
        os.write(server.fileno(), b"220 Go on\r\n")
        server.setblocking(True)
        server.do_handshake()
        server.recv(100)
        server.sendall(b"221 Bye\r\n")


def test_a_call_that_reads_two_connections_is_not_guessed_at(tapped: TapAndServer) -> None:
    """Here it is a callback of the handshake that reads the other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tapped.certificate.certificate, tapped.certificate.key)
    with socket.create_connection(("127.0.0.1", tapped.port)) as other, tapped.accept() as second:

        def read_the_other(*_: object) -> None:
            other.sendall(b"x")
            second.recv(1)

        def serve() -> None:
            with tapped.accept() as connection, context.wrap_socket(connection, server_side=True) as server:
                while server.recv(4_096):
                    server.sendall(b"250 Ok\r\n")

        context.sni_callback = read_the_other
        thread = threading.Thread(target=serve)
        thread.start()
        run_client(tapped)
        thread.join(20)
    events = tapped.tap.take()
    assert Kind.BEGUN in {event.kind for event in events}
    assert all(event.is_unsure for event in events)


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


def serve_with_one_session(tapped: TapAndServer) -> None:
    """One SSL for all, one after the other, by OpenSSL's own functions; it is never freed."""
    libssl = ctypes.CDLL("libssl.so.3")
    for function in (libssl.TLS_server_method, libssl.SSL_CTX_new, libssl.SSL_new):
        function.restype = ctypes.c_void_p
    context = ctypes.c_void_p(libssl.SSL_CTX_new(ctypes.c_void_p(libssl.TLS_server_method())))
    made = tapped.certificate
    assert libssl.SSL_CTX_use_certificate_chain_file(context, os.fsencode(made.certificate)) == 1
    assert libssl.SSL_CTX_use_PrivateKey_file(context, os.fsencode(made.key), 1) == 1
    session = ctypes.c_void_p(libssl.SSL_new(context))
    text = ctypes.create_string_buffer(4_096)
    for _ in range(CLIENTS):
        with tapped.accept() as connection:
            libssl.SSL_set_fd(session, connection.fileno())
            assert libssl.SSL_accept(session) == 1
            while libssl.SSL_read(session, text, len(text)) > 0:
                libssl.SSL_write(session, b"250 Ok\r\n", 8)
            libssl.SSL_clear(session)


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
    # Not a SimpleQueue: in Python 3.11 its get() can wait for ever where several wait with a timeout.
    readable: Queue[Fed] = Queue()
    encrypted: LifoQueue[tuple[Fed, bytes]] = LifoQueue()  # who comes first gets what another read
    gone: list[Fed] = []
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
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
                gone.append(fed)

    waiting = {fed.connection.fileno(): fed for fed in all_of_them}
    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 20
    while len(gone) < CLIENTS and time.monotonic() < deadline:
        for descriptor in select.select(list(waiting), [], [], 0.01)[0]:
            readable.put(waiting.pop(descriptor))
    is_over.set()
    for worker in workers:
        worker.join(20)
    for fed in all_of_them:
        fed.connection.close()
