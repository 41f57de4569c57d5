"""Lets the host reach a port that something listens on inside a namespace."""

import contextlib
import selectors
import socket
import socketserver
import threading
from types import TracebackType
from typing import Final, Self

from tests.lab.network import Namespace
from tests.lab.truth import Endpoint

_IDLE_SECONDS: Final = 30.0
_READ_SIZE: Final = 65_536


class Doorway:
    """A context manager; raises OSError when the host's port is taken."""

    def __init__(self, namespace: Namespace, address: Endpoint, outside: Endpoint | None = None) -> None:
        """`outside`: where on the host; as inside where nothing is said. Port 0 is any free one."""

        class Passage(socketserver.BaseRequestHandler):
            """One connection, in a thread of its own, which walks through the doorway."""

            def handle(self) -> None:
                namespace.enter_thread()
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(address, timeout=_IDLE_SECONDS) as inside,
                ):
                    _pass_on(self.request, inside)

        self._server = _Server(outside or address, Passage)
        host, port = self._server.server_address[:2]
        self.outside: Endpoint = (str(host), int(port))

    def __enter__(self) -> Self:
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        ).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


def _pass_on(outside: socket.socket, inside: socket.socket) -> None:
    """Both ways, until either side has no more to say."""
    with selectors.DefaultSelector() as selector:
        selector.register(outside, selectors.EVENT_READ, inside)
        selector.register(inside, selectors.EVENT_READ, outside)
        while ready := selector.select(_IDLE_SECONDS):
            for key, _ in ready:
                source, other = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                if not (data := source.recv(_READ_SIZE)):
                    return
                other.sendall(data)
