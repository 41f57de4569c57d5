"""/metrics over HTTP: cheroot, kept on a short lead.

cheroot hands a new connection to a worker thread at once, which then waits for the request: as many idle
connections as workers stop every scrape until they time out. Here a connection waits in cheroot's selector,
without a thread, until its request has arrived whole. Who hasn't sent one within `REQUEST_SECONDS` is closed;
over `WAITING_MAX` the one that has waited longest is. So a worker is busy only while it answers.
"""

import logging
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from html import escape
from threading import Thread
from types import SimpleNamespace
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from cheroot import wsgi
from cheroot.server import HTTPConnection
from prometheus_client import make_wsgi_app

from monitor.metrics.collector import VERSION, MonitorCollector, registry_of

WORKERS: Final = 4  # a scrape is some milliseconds of one core, and there is rarely more than one scraper
QUEUE_MAX: Final = 64  # whole requests that wait for a worker; those over it are answered 503
WAITING_MAX: Final = 256  # a quarter of the usual limit of 1,024 open files
REQUEST_SECONDS: Final = 5  # half of Prometheus' default scrape time-out
HEADER_BYTES_MAX: Final = 8192  # what nginx and Apache allow

_LOG: Final = logging.getLogger(__name__)

_LANDING_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>smtp-horizon</title></head>
<body><h1>smtp-horizon {version}</h1>
<p>How much of your mail is beyond the reach of a stream watcher?</p>
<p><a href="/metrics">Metrics</a></p></body></html>
"""


class MetricsServer:
    """Serves a collector from `start` until it is stopped.

    Binding may want privileges, and threads keep those that they are born with: so it is done in two steps.
    """

    def __init__(self, host: str, port: int) -> None:
        """Binds and listens. Raises OSError where that can't be done; port 0 takes any free one."""
        self._server = _Server(
            (host, port),
            _nothing_yet,
            numthreads=WORKERS,
            max=WORKERS,
            server_name="smtp-horizon",
            request_queue_size=128,
            timeout=REQUEST_SECONDS,
            accepted_queue_size=QUEUE_MAX,
            accepted_queue_timeout=1,
            shutdown_timeout=1,
        )
        try:
            self._server.prepare()
        except OSError as error:
            raise self._server.bind_error or error from None
        self._thread: Thread | None = None

    def start(self, collector: MonitorCollector) -> None:
        """Starts all threads."""
        self._server.wsgi_app = metrics_application(collector)
        self._server.requests.start()
        self._thread = Thread(target=self._server.serve, name="metrics-server", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.bind_addr
        return f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"

    def stop(self) -> None:
        self._server.stop()
        if self._thread is not None:
            self._thread.join()


def _nothing_yet(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    raise AssertionError("it is not started")


def metrics_application(collector: MonitorCollector) -> WSGIApplication:
    """GET and HEAD of `/metrics` and of a landing page; nothing else is there."""
    metrics = make_wsgi_app(registry_of(collector, with_process=True))
    landing_page = _LANDING_PAGE.format(version=escape(VERSION)).encode()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, headers, body = _respond(environ, metrics, landing_page)
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return application


_Response = tuple[str, list[tuple[str, str]], bytes]


def _respond(environ: WSGIEnvironment, metrics: Callable[..., Any], landing_page: bytes) -> _Response:
    text = ("Content-Type", "text/plain; charset=utf-8")
    if environ["PATH_INFO"] not in ("/", "/metrics"):
        return "404 Not Found", [text], b"Not found: metrics are at /metrics\n"
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return "405 Method Not Allowed", [text, ("Allow", "GET, HEAD")], b"Only GET and HEAD\n"
    if environ["PATH_INFO"] == "/":
        return "200 OK", [("Content-Type", "text/html; charset=utf-8")], landing_page

    answer: list[Any] = []
    # prometheus_client's application knows no HEAD.
    body = b"".join(metrics({**environ, "REQUEST_METHOD": "GET"}, lambda *args: answer.extend(args)))
    status, headers = answer
    return status, headers, body


class _Server(wsgi.Server):
    expiration_interval = 0.5  # how often idle connections are looked at
    keep_alive_conn_limit = 0  # one request a connection: scrapes are seconds apart
    max_request_header_size = HEADER_BYTES_MAX
    max_request_body_size = 1  # 0 would mean no limit; GET and HEAD have no body
    bind_error: OSError | None = None

    def prepare(self) -> None:
        # Connections that wait for their request, and since when, the longest waiting first. Only the
        # selector's thread touches it.
        self._waiting: dict[HTTPConnection, float] = {}
        # cheroot would start its workers here.
        workers, self.requests = self.requests, SimpleNamespace(start=lambda: None)
        try:
            super().prepare()
        finally:
            self.requests = workers

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:  # noqa: A002  (cheroot's name)
        """Keeps the error itself, of which cheroot passes on only the text."""
        try:
            bound: socket.socket = super().bind(family, type, proto)
        except OSError as error:
            self.bind_error = error
            raise
        return bound

    @staticmethod
    def bind_socket(socket_: socket.socket, bind_addr: tuple[str, int]) -> socket.socket:
        try:
            socket_.bind(bind_addr)
        except OSError:
            socket_.close()
            raise
        return socket_

    def process_conn(self, conn: HTTPConnection) -> None:
        """Called in the selector's thread, for a connection that is new or has something to read."""
        now = time.monotonic()
        since = self._waiting.pop(conn, now)
        if _has_request_arrived(conn.socket):
            conn.socket.settimeout(REQUEST_SECONDS)
            super().process_conn(conn)
        elif now - since > REQUEST_SECONDS:
            conn.close()
        else:
            self._forget_expired()
            self._waiting[conn] = since
            if len(self._waiting) > WAITING_MAX:
                # The selector still holds it. Shut down, it becomes readable, and is closed in its turn.
                oldest = next(iter(self._waiting))
                del self._waiting[oldest]
                _shut_down(oldest.socket)
            self.put_conn(conn)

    def _forget_expired(self) -> None:
        """Those that cheroot closed for their idleness stand at the front."""
        while self._waiting:
            oldest = next(iter(self._waiting))
            if oldest.socket.fileno() != -1:
                return
            del self._waiting[oldest]

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        _LOG.log(level, "metrics server: %s", msg, exc_info=traceback)


def _has_request_arrived(connection: socket.socket) -> bool:
    """Whether no worker would have to wait: the header is whole or over its bound, or the peer has closed.

    Otherwise tells the kernel to wake the selector only when there is more than what is there already; a
    header that comes byte by byte costs no busy loop.
    """
    connection.setblocking(False)
    try:
        waiting = connection.recv(HEADER_BYTES_MAX, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    seen_before = connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) - 1
    is_closed = len(waiting) <= seen_before
    if is_closed or b"\r\n\r\n" in waiting or len(waiting) == HEADER_BYTES_MAX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        return True
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(waiting) + 1)
    return False


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):  # gone already
        connection.shutdown(socket.SHUT_RDWR)
