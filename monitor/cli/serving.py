"""A process that serves `/metrics`, so that whoever reaches the port takes nothing from the capture.

    watch  ◀────────── a snapshot, please ──────────  server  ◀── HTTP, TLS, passwords ── clients
           ── the snapshot, or new web settings ──▶

However many ask, it asks `watch` for two snapshots a second at most (monitor/metrics/pages.py), each a
millisecond's work. All the rest is its own work, and the kernel gives it a processor only after `watch`. It
has no privileges, and ends with the process that began it.
"""

import asyncio
import gc
import logging
import os
import resource
import selectors
import socket
import struct
import time
from collections import deque
from threading import Thread
from typing import Final, Self

import msgspec

from monitor.cli import children
from monitor.cli.privileges import give_up
from monitor.metrics.collector import MonitorCollector
from monitor.metrics.server import (
    ANSWERED_MAX,
    DESCRIPTORS_KEPT,
    WAITING_MAX,
    MetricsServer,
    address_of,
)
from monitor.metrics.snapshot import Source
from monitor.metrics.web.settings import WebSettings
from monitor.rights import User
from probes.capabilities import Needs

NAME: Final = "horizon-metrics"
"""What `ps -o comm` shows, by which to tell it from the others."""

NICENESS: Final = 10
"""A tenth of what `watch` gets, where both want one processor, which is enough to be scraped."""
REST_SECONDS: Final = 0.05
"""Between two snapshots, whatever asks: so that who owns the server can't blind the capture either."""
END_SECONDS: Final = 2.0
"""How long its end is waited for. It ends by itself as soon as the kernel lets it run."""

_ASK: Final = b"?"
_BEGIN: Final = b"b"
_SNAPSHOT: Final = b"s"
_FAULT: Final = b"f"
_WEB: Final = b"w"
_HEADER: Final = struct.Struct("<cI")  # what follows, and how many bytes of it

_LOG: Final = logging.getLogger(__name__)


class WebFiles(msgspec.Struct, frozen=True):
    """A web configuration that was found good: where it is, and all files that belong to it."""

    path: str
    contents: dict[str, bytes]


class Serving:
    """The near end: `watch`'s own."""

    def __init__(self, connection: socket.socket, process: int, url: str) -> None:
        self.url = url
        self.process = process
        self.has_ended = False
        """Of itself, which it should not."""
        self._connection = connection
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._new_web: WebFiles | None = None
        self._thread: Thread | None = None

    @classmethod
    def start(cls, listener: socket.socket, web: WebSettings, user: User) -> Self:
        """`user`: whom the process goes on as. To be called while there is one thread, and before anything is
        open that it should not hold. Takes the listener over. Nobody is served before `begin`."""
        here, there = socket.socketpair()
        process = os.fork()
        if not process:
            status = 1
            try:
                _prepare(listener, there)
                give_up(user, Needs())
                asyncio.run(_serve(listener, there, web))
                status = 0
            except Exception:
                _LOG.exception("metrics server")
            finally:
                os._exit(status)
        url = f"{'https' if web.tls is not None else 'http'}://{address_of(listener)}/metrics"
        listener.close()
        there.close()
        return cls(here, process, url)

    def begin(self, collector: MonitorCollector) -> None:
        """In a thread, which has the privileges of the one that calls.

        It has no lower priority than the capture: it would hold Python's lock, and not get a processor.
        """
        self._thread = Thread(target=self._answer, args=(Source(collector),), name="metrics", daemon=True)
        self._thread.start()

    def replace(self, web: WebFiles) -> None:
        """For the connections that come from now on. Waits for nobody."""
        self._new_web = web
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Answers that are on their way are cut."""
        self._connection.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join()
        self._connection.close()
        os.close(self._wake)
        deadline = time.monotonic() + END_SECONDS
        while not os.waitpid(self.process, os.WNOHANG)[0]:
            if time.monotonic() > deadline:
                _LOG.warning("the metrics server does not end yet: it gets no processor")
                return
            time.sleep(0.005)

    def _answer(self, source: Source) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                selector.register(self._wake, selectors.EVENT_READ)
                self._send(_BEGIN)
                while True:
                    for key, _ in selector.select():
                        if key.fd == self._wake:
                            self._pass_on_new_web()
                        elif self._connection.recv(len(_ASK)):
                            self._pass_on_snapshot(source)
                        else:
                            return
        except OSError:
            return  # it has gone
        finally:
            self.has_ended = True

    def _pass_on_snapshot(self, source: Source) -> None:
        try:
            snapshot = source.take()
        except Exception as error:  # a mistake of ours, which the server tells
            self._send(_FAULT, repr(error).encode())
        else:
            self._send(_SNAPSHOT, snapshot)
        time.sleep(REST_SECONDS)

    def _pass_on_new_web(self) -> None:
        os.eventfd_read(self._wake)
        web, self._new_web = self._new_web, None
        if web is not None:
            self._send(_WEB, msgspec.msgpack.encode(web))

    def _send(self, what: bytes, content: bytes = b"") -> None:
        self._connection.sendall(_HEADER.pack(what, len(content)) + content)


def _prepare(listener: socket.socket, connection: socket.socket) -> None:
    children.begin(NAME)
    children.close_all_but(listener.fileno(), connection.fileno())
    with open(os.devnull, "r+b", buffering=0) as nothing:
        for stream in (0, 1):  # records may go to standard output
            os.dup2(nothing.fileno(), stream)
    gc.freeze()  # what is shared with `watch` stays so
    _limit_descriptors()
    _come_last()


def _limit_descriptors() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WAITING_MAX + ANSWERED_MAX + DESCRIPTORS_KEPT
    limit = most if soft == resource.RLIM_INFINITY else min(soft, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def _come_last() -> None:
    """Takes no processor from `watch`: of the time, a tenth; and SCHED_BATCH, which interrupts nobody."""
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        os.nice(NICENESS)
    except OSError as error:  # by who started us: systemd, a container
        _LOG.warning("metrics are served with the priority of the capture: %s", error.strerror)


async def _serve(listener: socket.socket, connection: socket.socket, web: WebSettings) -> None:
    """Until the other end is closed."""
    reader, writer = await asyncio.open_connection(sock=connection)
    asked: deque[asyncio.Future[bytes]] = deque()

    def take_snapshot() -> asyncio.Future[bytes]:
        asked.append(asyncio.get_running_loop().create_future())
        writer.write(_ASK)
        return asked[-1]

    server = MetricsServer(listener, web, take_snapshot)
    async with asyncio.TaskGroup() as group:
        serving: asyncio.Task[None] | None = None
        while True:
            try:
                what, size = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                content = await reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            if what == _BEGIN:
                serving = group.create_task(server.serve())
            elif what == _WEB:
                _replace(server, content)
            elif what == _SNAPSHOT:
                asked.popleft().set_result(content)
            else:
                asked.popleft().set_exception(RuntimeError(content.decode()))
        if serving is not None:
            serving.cancel()


def _replace(server: MetricsServer, content: bytes) -> None:
    # Loaded by `watch`, before.
    from monitor.metrics.web.config import WebConfigError, load  # noqa: PLC0415

    files = msgspec.msgpack.decode(content, type=WebFiles)
    try:
        server.replace(load(files.path, lambda path: files.contents[str(path)]))
    except WebConfigError as error:
        _LOG.error("%s; going on with what was read before", error)
