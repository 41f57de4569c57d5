"""Who holds a port that is taken."""

import re
import socket
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from monitor.cli.main import one_line
from monitor.cli.serving import NAME

_UNIT: Final = re.compile(r"/([^/]+\.service)$", re.MULTILINE)


class Listener(NamedTuple):
    name: str
    process: int
    unit: str | None
    """The service of systemd that it is part of."""

    @property
    def is_watch(self) -> bool:
        return self.name == NAME

    def __str__(self) -> str:
        name = "another smtp-horizon" if self.is_watch else self.name
        # Whoever started it has chosen its name: a terminal shall see none of what could be in there.
        return one_line(f"{name} ({f'{self.unit}, ' if self.unit else ''}process {self.process})")


def listener_on(port: int) -> Listener | None:
    """None where it can't be seen: other users' processes are root's to see, and so are other containers'."""
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or not connection.laddr:
            continue
        if connection.laddr.port == port and connection.pid is not None:
            try:
                return Listener(psutil.Process(connection.pid).name(), connection.pid, _unit(connection.pid))
            except (psutil.Error, OSError):
                return None
    return None


def is_taken(host: str, port: int) -> bool:
    """Whether something listens there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError:
            return True
    return False


def _unit(process: int) -> str | None:
    found = _UNIT.search(Path(f"/proc/{process}/cgroup").read_text())
    return found and found[1]
