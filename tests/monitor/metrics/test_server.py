"""The metrics server, with real sockets that don't behave."""

import http.client
import os
import resource
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import psutil
import pytest

from monitor.cli.serving import Serving
from monitor.cli.users import current
from monitor.metrics.server import HEADER_BYTES_MAX, REQUEST_SECONDS, WAITING_MAX, listen
from monitor.metrics.tally import Tally
from monitor.metrics.web.settings import WebSettings
from monitor.sessions.record import SessionRecord
from tests.monitor.metrics.conftest import StartServing, logging_to_standard_error

# Who is stopped by another waits until that one's time is up. Alone a scrape takes some 15 ms; the rest is
# room for a busy machine.
PROMPT_SECONDS = REQUEST_SECONDS - 1


@pytest.fixture
def server(start_serving: StartServing) -> Serving:
    return start_serving(WebSettings())


def _address(server: Serving) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").removesuffix("/metrics").split(":")
    return host, int(port)


def _ask(server: Serving, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*_address(server), timeout=10)
    connection.request(method, path)
    response = connection.getresponse()
    answer = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return answer


def _processor_seconds(server: Serving) -> float:
    times = psutil.Process(server.process).cpu_times()
    return times.user + times.system


def _timed_scrape(server: Serving) -> float:
    begin = time.monotonic()
    status, _, body = _ask(server, "GET", "/metrics")
    assert status == 200
    assert b"smtp_sessions_total" in body
    return time.monotonic() - begin


def test_metrics_and_a_landing_page_are_all_there_is(server: Serving) -> None:
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


def test_only_get_and_head_are_answered(server: Serving) -> None:
    status, headers, body = _ask(server, "HEAD", "/metrics")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 10_000
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        status, headers, _ = _ask(server, method, "/metrics")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_a_scrape_sees_what_was_counted(
    server: Serving, tally: Tally, make_record: Callable[..., SessionRecord]
) -> None:
    tally.count(make_record("starttls"))
    expected = b'smtp_tls_handshakes_total{port="25",version="TLSv1.3"} 1.0'
    assert expected in _ask(server, "GET", "/metrics")[2]


def test_two_hundred_idle_connections_stop_no_scrape_and_hold_no_thread(server: Serving) -> None:
    with ExitStack() as open_connections:
        for _ in range(200):
            open_connections.enter_context(socket.create_connection(_address(server)))
        assert _timed_scrape(server) < PROMPT_SECONDS
        assert psutil.Process(server.process).num_threads() == 1


def test_two_hundred_half_requests_stop_no_scrape_and_burn_no_processor(server: Serving) -> None:
    with ExitStack() as open_connections:
        for _ in range(200):
            connection = open_connections.enter_context(socket.create_connection(_address(server)))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHo")
        assert _timed_scrape(server) < PROMPT_SECONDS
        begin = _processor_seconds(server)
        time.sleep(1)
        assert _processor_seconds(server) - begin < 0.2


def test_over_the_bound_the_longest_waiting_connections_go(server: Serving) -> None:
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


def test_a_request_that_comes_byte_by_byte_is_answered(server: Serving) -> None:
    with socket.create_connection(_address(server)) as connection:
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\n\r\n":
            connection.sendall(bytes([byte]))
            time.sleep(0.002)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://mx.example/metrics", b"200"),
        (b"https://mx.example/metrics?x=http://y/", b"200"),
        (b"http://mx.example", b"200"),
        (b"http://mx.example/nothing", b"404"),
        (b"//metrics", b"404"),
    ],
)
def test_a_target_may_have_scheme_and_host(server: Serving, target: bytes, status: bytes) -> None:
    with socket.create_connection(_address(server)) as connection:
        connection.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: mx.example\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 " + status


def test_who_drips_bytes_is_closed_in_time(server: Serving) -> None:
    begin = time.monotonic()
    with socket.create_connection(_address(server)) as connection:
        while time.monotonic() - begin < 3 * REQUEST_SECONDS:
            try:
                connection.sendall(b"G")
            except OSError:
                break
            time.sleep(0.2)
    assert REQUEST_SECONDS <= time.monotonic() - begin < REQUEST_SECONDS + 2


def test_a_header_without_end_is_refused(server: Serving) -> None:
    with socket.create_connection(_address(server)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nA: " + b"x" * (HEADER_BYTES_MAX + 100))
        assert connection.recv(100).startswith(b"HTTP/1.1 431")


def test_who_sends_a_body_gets_the_whole_answer_all_the_same(server: Serving) -> None:
    with socket.create_connection(_address(server)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + b"x" * 20000)
        connection.settimeout(5)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 405")
    assert answer.endswith(b"Only GET and HEAD\n")


def test_a_client_that_hangs_up_in_the_middle_of_its_request_is_forgotten(server: Serving) -> None:
    for _ in range(50):
        with socket.create_connection(_address(server)) as connection:
            connection.sendall(b"GET /metr")
    assert _timed_scrape(server) < PROMPT_SECONDS


def test_an_address_in_use_is_an_error_at_once(server: Serving) -> None:
    with pytest.raises(OSError, match="in use"):
        listen(*_address(server))


def test_an_ipv6_address_stands_in_brackets() -> None:
    server = Serving.start(listen("::1", 0), WebSettings(), current())
    assert server.url.startswith("http://[::1]:")
    server.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a process that allows no dumps")
def test_without_a_descriptor_for_a_connection_it_waits_and_goes_on(
    start_serving: StartServing, capfd: pytest.CaptureFixture[str]
) -> None:
    with logging_to_standard_error():
        server = start_serving(WebSettings())
    _ask(server, "GET", "/")
    taken = set(map(int, os.listdir(f"/proc/{server.process}/fd")))
    limits = resource.prlimit(server.process, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process, resource.RLIMIT_NOFILE, (min(set(range(1000)) - taken), limits[1]))
    used = _processor_seconds(server)
    with ExitStack() as connections:
        for _ in range(5):
            connections.enter_context(socket.create_connection(_address(server)))
        time.sleep(1.5)
    assert _processor_seconds(server) - used < 0.5
    resource.prlimit(server.process, resource.RLIMIT_NOFILE, limits)
    assert _ask(server, "GET", "/")[0] == 200
    said = [line for line in capfd.readouterr().err.splitlines() if "metrics server" in line]
    assert said == ["metrics server: no new connections for now: Too many open files"]
