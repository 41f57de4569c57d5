"""Five hundred clients that do not behave, with TLS and without: what they may hold, and that a good scraper
is served beside them."""

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Final
from urllib.parse import urlsplit

import psutil
import pytest

from monitor.metrics.server import ANSWERED_MAX, REQUEST_SECONDS, WAITING_MAX
from tests.monitor.metrics.web.conftest import CERTIFIED, Served

Serve = Callable[[str], Served]

CLIENTS: Final = 500
# Who is stopped by another waits until that one's time is up. Alone it takes some 30 ms, curl's own start
# included; the rest is a busy machine.
PROMPT_SECONDS: Final = REQUEST_SECONDS - 1
GROWTH_MAX: Final = 48 * 1024**2

REQUEST: Final = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(params=["", CERTIFIED], ids=["plain", "tls"])
def served(request: pytest.FixtureRequest, serve: Serve) -> Served:
    return serve(request.param)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as sockets:
        yield sockets


def _address(served: Served) -> tuple[str, int]:
    parts = urlsplit(served.server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _connect(served: Served, opened: ExitStack, *, receive_bytes: int | None = None) -> socket.socket:
    """TCP alone."""
    connection = opened.enter_context(socket.socket())
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(10)
    connection.connect(_address(served))
    return connection


def _speak(served: Served, connection: socket.socket, opened: ExitStack) -> socket.socket:
    """With the handshake, where there is to be one."""
    if not served.server.url.startswith("https"):
        return connection
    context = ssl.create_default_context(cafile=str(served.folder / "authority.pem"))
    return opened.enter_context(context.wrap_socket(connection, server_hostname="127.0.0.1"))


def _assert_a_good_scraper_is_served(served: Served) -> None:
    begin = time.monotonic()
    answer = served.curl("--compressed")
    assert (answer.curl_status, answer.status) == (0, 200)
    assert "smtp_sessions_total" in answer.body
    assert time.monotonic() - begin < PROMPT_SECONDS


def _assert_bounded(served: Served) -> None:
    process = psutil.Process(served.server.process)
    assert process.num_threads() == 1
    if os.geteuid() != 0:  # nobody else may look at the descriptors of a process that allows no dumps
        return
    port = _address(served)[1]
    here = [
        connection
        for connection in process.net_connections("tcp")
        if connection.laddr.port == port and connection.status != psutil.CONN_LISTEN
    ]
    assert 0 < len(here) <= WAITING_MAX + ANSWERED_MAX


def test_who_says_nothing_stops_nobody(served: Served, opened: ExitStack) -> None:
    for _ in range(CLIENTS):
        _connect(served, opened)
    _assert_a_good_scraper_is_served(served)
    _assert_bounded(served)


def test_who_sends_a_byte_now_and_then_stops_nobody(served: Served, opened: ExitStack) -> None:
    connections = [_connect(served, opened) for _ in range(CLIENTS)]
    for byte in b"GET ":  # where TLS is spoken, no TLS
        for connection in connections:
            with suppress(OSError):
                connection.send(bytes([byte]))
        _assert_a_good_scraper_is_served(served)
    _assert_bounded(served)


def test_who_drips_after_the_handshake_stops_nobody(served: Served, opened: ExitStack) -> None:
    connections = [_speak(served, _connect(served, opened), opened) for _ in range(CLIENTS)]
    for byte in REQUEST[:4]:
        for connection in connections:
            with suppress(OSError):
                connection.send(bytes([byte]))
        _assert_a_good_scraper_is_served(served)
    _assert_bounded(served)


@pytest.mark.thorough
def test_who_never_reads_the_answer_stops_nobody_and_takes_little_memory(
    served: Served, opened: ExitStack
) -> None:
    _assert_a_good_scraper_is_served(served)
    process = psutil.Process(served.server.process)
    before = process.memory_info().rss
    for number in range(CLIENTS):
        with suppress(OSError):
            _speak(served, _connect(served, opened, receive_bytes=1), opened).sendall(REQUEST)
        if number % 100 == 99:
            _assert_a_good_scraper_is_served(served)
    _assert_bounded(served)
    assert process.memory_info().rss - before < GROWTH_MAX


@pytest.mark.thorough
def test_who_says_nothing_is_gone_when_its_time_is_up(served: Served, opened: ExitStack) -> None:
    connections = [_connect(served, opened) for _ in range(20)]
    time.sleep(REQUEST_SECONDS + 1)
    assert not any(_is_open(connection) for connection in connections)


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
