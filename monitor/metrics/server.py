"""/metrics over HTTP and HTTPS: one event loop, and a bound on all that a client can hold.

It runs in a process of its own (monitor/cli/serving.py).

A connection is a coroutine, so who says nothing, or drips, or never reads, holds no thread and stops
nobody, not in a TLS handshake either. It has `REQUEST_SECONDS` for the handshake and its request,
`ANSWER_SECONDS` for the answer; where there are too many, those that have waited longest go. One request a
connection, since scrapes are seconds apart.
"""

import asyncio
import logging
import math
import os
import resource
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar

import h11

from monitor.metrics.pages import Answer, Pages
from monitor.metrics.web.gate import Gate
from monitor.metrics.web.settings import WebSettings
from monitor.metrics.web.tls import names_in

REQUEST_SECONDS: Final = 5  # half of Prometheus' default scrape time-out
ANSWER_SECONDS: Final = 10  # Prometheus' default scrape time-out: nobody waits longer
WAITING_MAX: Final = 192  # connections whose request has not come yet
ANSWERED_MAX: Final = 64  # those that are being answered
DESCRIPTORS_KEPT: Final = 24  # of the process, for all but connections; it has some ten open
HEADER_BYTES_MAX: Final = 8192  # what nginx and Apache allow
BACKLOG: Final = 1024  # where it is full, the kernel lets a client wait a second before it may ask again

GONE_AT_ONCE: Final = 32  # connections that were reset before they were accepted: it takes a millisecond

LOG_EVERY_SECONDS: Final = 60.0

_RETRY_SECONDS: Final = 1  # after the kernel could not give us a connection

_UNASKED_READS_MAX: Final = 8
"""What a client may go on sending after its request, in times of `HEADER_BYTES_MAX`: closed with some of it
unread, the kernel would throw away the answer, too."""

_TLS_RECORD_BYTES: Final = 16_384  # RFC 8446 section 5.1

_T = TypeVar("_T")

_LOG: Final = logging.getLogger(__name__)


class MetricsServer:
    """Serves from a listening socket. For the thread of one event loop."""

    def __init__(
        self, listener: socket.socket, web: WebSettings, take_snapshot: Callable[[], Awaitable[bytes]]
    ) -> None:
        """`take_snapshot`: what monitor.metrics.snapshot.Source has taken at that moment."""
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop
        """From `serve` on."""
        self._pages = Pages(take_snapshot)
        # Of both, the longest waiting first.
        self._waiting: dict[asyncio.Task[None], None] = {}
        self._answered: dict[asyncio.Task[None], None] = {}
        self._waiting_max, self._answered_max = _bounds()
        self._faults = _Seldom(logging.ERROR)
        self._shortages = _Seldom(logging.WARNING)
        self._gate = Gate()
        self.replace(web)

    def replace(self, web: WebSettings) -> None:
        """For the connections that come from now on."""
        self._web = web
        self._gate.replace(web)

    async def serve(self) -> None:
        """Until it is cancelled. Connections that came before have waited in the kernel."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_log_unexpected)
        gone = 0
        try:
            while True:
                try:
                    connection, address = await self._loop.sock_accept(self._listener)
                except ConnectionAbortedError:
                    continue  # the client has gone before it was accepted
                except OSError as error:  # no descriptor or no memory for it
                    self._shortages.log(f"no new connections for now: {error.strerror}")
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    connection.close()  # reset already: a flood of these is over at once
                    gone += 1
                else:
                    self._admit(connection, address[0])
                    gone = 0
                if gone % GONE_AT_ONCE == 0:
                    await asyncio.sleep(0)  # the others' turn, however many connections come
        finally:
            still_open = [*self._waiting, *self._answered]
            for task in still_open:
                task.cancel()
            await asyncio.gather(*still_open, return_exceptions=True)

    def _admit(self, connection: socket.socket, address: str) -> None:
        client = _Client(self._loop, connection)
        task = self._loop.create_task(self._converse(client, address))
        task.add_done_callback(partial(self._forget, client))
        _put(task, self._waiting, self._waiting_max)

    def _request_has_come(self) -> None:
        # A method of its own: a coroutine whose frame holds its own task would be there until Python looks
        # for garbage.
        task = asyncio.current_task()
        assert task is not None
        self._waiting.pop(task, None)
        _put(task, self._answered, self._answered_max)

    def _forget(self, client: "_Client", task: asyncio.Task[None]) -> None:
        client.abort()
        self._waiting.pop(task, None)
        self._answered.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            self._faults.log(repr(task.exception()))

    async def _converse(self, client: "_Client", address: str) -> None:
        """From the connection to its end, or to where it is given up: `_forget` closes it."""
        web = self._web
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await client.begin(web.tls)
                if web.client_names is not None and not client.names & web.client_names:
                    _LOG.debug("metrics server: the client's certificate has no name that is allowed")
                    return
                request = await client.request()
            if request is None:
                return
            self._request_has_come()
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._answer(request, address)
                await client.send(answer, web.headers, with_body=request.method != b"HEAD")
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            return  # whoever it was has gone, does not speak TLS, or takes too long

    async def _answer(self, request: "_Request", address: str) -> Answer:
        if request.error is not None:
            return Answer(request.error, HTTPStatus(request.error).phrase.encode() + b"\n")
        refusal = await self._gate.refusal(request.headers, address)
        return refusal or await self._pages.answer(request.method, request.path, request.headers)


@dataclass(frozen=True, slots=True)
class _Request:
    method: bytes = b""
    path: bytes = b""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    error: int | None = None
    """The status to answer with, where it was no HTTP."""


class _Client:
    """One connection: bytes to a request, and an answer to bytes.

    TLS is a layer of bytes over the same stream. asyncio's own takes 256 kB for each connection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        self._loop = loop
        self._connection = connection
        self._set_reset_at_close(True)
        self._reader = asyncio.StreamReader(limit=HEADER_BYTES_MAX, loop=loop)
        self._writer: asyncio.StreamWriter | None = None
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES_MAX)

    async def begin(self, tls: ssl.SSLContext | None) -> None:
        """With a TLS handshake, if there is to be one."""
        protocol = asyncio.StreamReaderProtocol(self._reader, loop=self._loop)
        transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, self._connection)
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, self._loop)
        if tls is not None:
            self._tls = tls.wrap_bio(self._incoming, self._outgoing, server_side=True)
            await self._over_tls(self._tls.do_handshake)

    @property
    def names(self) -> set[str]:
        """Of its certificate."""
        return names_in((self._tls and self._tls.getpeercert()) or {})

    async def request(self) -> _Request | None:
        """None: it has closed without one."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._read())
        except h11.RemoteProtocolError as error:
            return _Request(error=error.error_status_hint)
        if not isinstance(event, h11.Request):
            return None
        headers: dict[bytes, bytes] = {}
        for name, value in event.headers:
            # A list may come in several lines: RFC 9110 section 5.3.
            headers[name] = headers[name] + b", " + value if name in headers else value
        return _Request(event.method, _path_of(event.target), headers)

    async def send(self, answer: Answer, more_headers: Mapping[str, str], *, with_body: bool) -> None:
        """Returns when the client has said that it has all of it, by closing its own side.

        Not when the kernel has it: that would go on holding it for a client that never reads.
        """
        headers = {
            "Server": "smtp-horizon",
            "Date": formatdate(usegmt=True),
            "Connection": "close",
            "Content-Length": str(len(answer.body)),
            **answer.headers,
            **more_headers,
        }
        response = h11.Response(
            status_code=answer.status,
            headers=[*headers.items()],
            reason=HTTPStatus(answer.status).phrase,
        )
        assert self._writer is not None
        self._write(self._http.send(response) or b"")
        if with_body:
            self._write(answer.body)
        if self._tls is not None:
            with suppress(ssl.SSLError):  # the client's good-bye may come later, or something else
                self._tls.unwrap()
            self._writer.write(self._outgoing.read())
        self._writer.write_eof()
        for _ in range(_UNASKED_READS_MAX):
            if not await self._reader.read(HEADER_BYTES_MAX):
                break
        self._set_reset_at_close(False)
        self._writer.close()
        await self._writer.wait_closed()

    def abort(self) -> None:
        """Lets go of it, if it has not come to its end."""
        if self._writer is not None:
            self._writer.transport.abort()
        else:
            self._connection.close()

    async def _read(self) -> bytes:
        """Some bytes; none at the end."""
        if self._tls is None:
            return await self._reader.read(HEADER_BYTES_MAX)
        return await self._over_tls(partial(self._tls.read, HEADER_BYTES_MAX))

    def _write(self, data: bytes) -> None:
        assert self._writer is not None
        if self._tls is None:
            self._writer.write(data)
            return
        for begin in range(0, len(data), _TLS_RECORD_BYTES):  # or the BIO would grow, and stay so
            self._tls.write(data[begin : begin + _TLS_RECORD_BYTES])
            self._writer.write(self._outgoing.read())

    async def _over_tls(self, step: Callable[[], _T]) -> _T:
        """Does it as soon as there are bytes enough. Raises ssl.SSLError."""
        assert self._writer is not None
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                pass
            finally:
                self._writer.write(self._outgoing.read())  # an alert, too
            data = await self._reader.read(HEADER_BYTES_MAX)
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _set_reset_at_close(self, is_on: bool) -> None:
        """Whether the kernel forgets the connection at once, with all that it has for the client."""
        with suppress(OSError):
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", is_on, 0))


def _path_of(target: bytes) -> bytes:
    """Without a query. A server must accept targets with scheme and host, too: RFC 9112 section 3.2.2."""
    path = target.partition(b"?")[0]
    if path.startswith((b"http://", b"https://")):
        return b"/" + path.partition(b"://")[2].partition(b"/")[2]
    return path


def _put(task: asyncio.Task[None], among: dict[asyncio.Task[None], None], at_most: int) -> None:
    among[task] = None
    if len(among) > at_most:
        longest = next(iter(among))
        del among[longest]
        longest.cancel()


def listen(host: str, port: int) -> socket.socket:
    """Where clients connect to; port 0 takes any free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        # create_server adds to the kernel's words what its caller knows already.
        if isinstance(error, socket.gaierror) or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno)) from error
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> str:
    """As it stands in a URL."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bounds() -> tuple[int, int]:
    """How many connections may wait, and how many may be answered, with the descriptors that there are."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WAITING_MAX + ANSWERED_MAX
    connections = min(most, max(2, descriptors - DESCRIPTORS_KEPT))
    answered = max(1, connections * ANSWERED_MAX // most)
    return connections - answered, answered


class _Seldom:
    """What clients can bring about, in one line a minute, however often they do."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._quiet_until = -math.inf
        self._unsaid = 0

    def log(self, what: str) -> None:
        now = time.monotonic()
        if now < self._quiet_until:
            self._unsaid += 1
            return
        before = f" ({self._unsaid} more such lines since the last one)" if self._unsaid else ""
        _LOG.log(self._level, "metrics server: %s%s", what, before)
        self._quiet_until, self._unsaid = now + LOG_EVERY_SECONDS, 0


def _log_unexpected(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio has to tell of a connection, which is nobody's fault here."""
    _LOG.debug("metrics server: %s: %r", context["message"], context.get("exception"))
