"""What systemd is told of `watch`: that it captures, what it does, that it ends.

The protocol is a datagram of lines to the socket that NOTIFY_SOCKET names: sd_notify(3). Without that
variable nobody is told anything.
"""

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final, Self

_SOCKET: Final = "NOTIFY_SOCKET"
_OTHERS: Final = ("WATCHDOG_PID", "WATCHDOG_USEC")
"""That go with it, and are not for the programs that we start."""


class ServiceManager:
    """Connected once, at the start: later no socket can be made, and no name be found."""

    def __init__(self, connection: socket.socket | None) -> None:
        self._connection = connection

    @classmethod
    def named(cls, address: str | None) -> Self:
        """As the variable's value has it."""
        if not address or address[0] not in "/@":
            return cls(None)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        connection.setblocking(False)
        try:
            # linux: unix(7), "abstract".
            connection.connect("\0" + address[1:] if address[0] == "@" else address)
        except OSError:  # whoever set it has gone
            connection.close()
            return cls(None)
        return cls(connection)

    def ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        self._tell(f"STATUS={status}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=writing the sessions that are still open")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _tell(self, *lines: str) -> None:
        if self._connection is not None:
            # It does not listen, or is slow: the capture waits for nobody.
            with suppress(OSError):
                self._connection.send(os.fsencode("\n".join(lines)))


def taken_from(environment: MutableMapping[str, str] = os.environ) -> str | None:
    """The socket's name. No process that is started from here on has it: another could speak for us."""
    for name in _OTHERS:
        environment.pop(name, None)
    return environment.pop(_SOCKET, None)
