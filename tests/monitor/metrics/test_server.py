"""The metrics server, with real sockets that don't behave."""

import http.client
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from monitor.metrics.collector import MonitorCollector
from monitor.metrics.server import HEADER_BYTES_MAX, REQUEST_SECONDS, WAITING_MAX, MetricsServer
from monitor.metrics.tally import Tally
from monitor.sessions.record import SessionRecord

# Who is stopped by another waits until that one's time is up. Alone a scrape takes some 15 ms; the rest is
# room for a busy machine.
PROMPT_SECONDS = REQUEST_SECONDS - 1


@pytest.fixture
def server(collector: MonitorCollector) -> Iterator[MetricsServer]:
    server = MetricsServer("127.0.0.1", 0)
    server.start(collector)
    yield server
    server.stop()


def _address(server: MetricsServer) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").removesuffix("/metrics").split(":")
    return host, int(port)


def _ask(server: MetricsServer, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*_address(server), timeout=10)
    connection.request(method, path)
    response = connection.getresponse()
    answer = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return answer


def _timed_scrape(server: MetricsServer) -> float:
    begin = time.monotonic()
    status, _, body = _ask(server, "GET", "/metrics")
    assert status == 200
    assert b"smtp_sessions_total" in body
    return time.monotonic() - begin


def test_metrics_and_a_landing_page_are_all_there_is(server: MetricsServer) -> None:
    status, headers, body = _ask(server, "GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert b"process_resident_memory_bytes" in body
    status, headers, body = _ask(server, "GET", "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert b'href="/metrics"' in body
    for path in ("/metrics/", "/favicon.ico", "/../etc/passwd", "/metricsx"):
        assert _ask(server, "GET", path)[0] == 404


def test_only_get_and_head_are_answered(server: MetricsServer) -> None:
    status, headers, body = _ask(server, "HEAD", "/metrics")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 10_000
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        status, headers, _ = _ask(server, method, "/metrics")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_a_scrape_sees_what_was_counted(
    server: MetricsServer, tally: Tally, make_record: Callable[..., SessionRecord]
) -> None:
    tally.count(make_record("starttls"))
    expected = b'smtp_tls_handshakes_total{port="25",version="TLSv1.3"} 1.0'
    assert expected in _ask(server, "GET", "/metrics")[2]


def test_two_hundred_idle_connections_stop_no_scrape_and_hold_no_thread(server: MetricsServer) -> None:
    before = threading.active_count()
    with ExitStack() as open_connections:
        for _ in range(200):
            open_connections.enter_context(socket.create_connection(_address(server)))
        assert _timed_scrape(server) < PROMPT_SECONDS
        assert threading.active_count() <= before + 1


def test_two_hundred_half_requests_stop_no_scrape_and_burn_no_processor(server: MetricsServer) -> None:
    with ExitStack() as open_connections:
        for _ in range(200):
            connection = open_connections.enter_context(socket.create_connection(_address(server)))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHo")
        assert _timed_scrape(server) < PROMPT_SECONDS
        begin = time.process_time()
        time.sleep(1)
        assert time.process_time() - begin < 0.2


def test_over_the_bound_the_longest_waiting_connections_go(server: MetricsServer) -> None:
    with ExitStack() as open_connections:
        connections = [
            open_connections.enter_context(socket.create_connection(_address(server)))
            for _ in range(WAITING_MAX + 20)
        ]
        assert _timed_scrape(server) < PROMPT_SECONDS
        connections[0].settimeout(2)
        with pytest.raises(ConnectionResetError):
            connections[0].recv(1)
        connections[-1].sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert connections[-1].recv(100).startswith(b"HTTP/1.1 200")


def test_a_request_that_comes_byte_by_byte_is_answered(server: MetricsServer) -> None:
    with socket.create_connection(_address(server)) as connection:
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\n\r\n":
            connection.sendall(bytes([byte]))
            time.sleep(0.002)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_who_drips_bytes_is_closed_in_time(server: MetricsServer) -> None:
    begin = time.monotonic()
    with socket.create_connection(_address(server)) as connection:
        while time.monotonic() - begin < 3 * REQUEST_SECONDS:
            try:
                connection.sendall(b"G")
            except OSError:
                break
            time.sleep(0.2)
    assert REQUEST_SECONDS <= time.monotonic() - begin < REQUEST_SECONDS + 2


def test_a_header_without_end_is_refused(server: MetricsServer) -> None:
    with socket.create_connection(_address(server)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nA: " + b"x" * (HEADER_BYTES_MAX + 100))
        assert connection.recv(100).startswith(b"HTTP/1.1 431")


def test_who_sends_a_body_gets_the_whole_answer_all_the_same(server: MetricsServer) -> None:
    with socket.create_connection(_address(server)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + b"x" * 20000)
        connection.settimeout(5)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 405")
    assert answer.endswith(b"Only GET and HEAD\n")


def test_a_client_that_hangs_up_in_the_middle_of_its_request_is_forgotten(server: MetricsServer) -> None:
    for _ in range(50):
        with socket.create_connection(_address(server)) as connection:
            connection.sendall(b"GET /metr")
    assert _timed_scrape(server) < PROMPT_SECONDS


def test_an_address_in_use_is_an_error_at_once(server: MetricsServer) -> None:
    with pytest.raises(OSError, match="in use"):
        MetricsServer(*_address(server))


def test_an_ipv6_address_stands_in_brackets() -> None:
    server = MetricsServer("::1", 0)
    assert server.url.startswith("http://[::1]:")
    server.stop()


def test_without_a_descriptor_for_a_connection_it_waits_and_goes_on(
    server: MetricsServer, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = [socket.socket() for _ in range(5)]
    used = time.process_time()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.dup(0))
    try:
        for connection in connections:
            connection.connect(_address(server))
        time.sleep(1.5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
    assert time.process_time() - used < 0.5
    assert [record.message for record in caplog.records] == [
        "metrics server: no new connections for now: Too many open files"
    ]
    assert _ask(server, "GET", "/")[0] == 200
    for connection in connections:
        connection.close()
