"""How `watch` comes to its TLS tap: the keeper is a process of its own, and keeps the few rights it needs."""

import os
import socket
from typing import Final

import msgspec

from monitor.cli import children
from monitor.cli.privileges import give_up
from monitor.cli.users import current
from monitor.rights import User
from probes.probe import ProbeUnavailable
from probes.tls_tap.news import News
from probes.tls_tap.tap import TlsTap

NAME: Final = "horizon-tap"
"""What `ps -o comm` shows of the keeper."""


class KeptTap(TlsTap):
    """A tap with its keeper, which ends with it."""

    process: int

    def close(self) -> None:
        super().close()
        if self.process:
            os.waitpid(self.process, 0)
        self.process = 0


def start_tap(ports: frozenset[int], user: User) -> KeptTap:
    """`user`: whom the keeper goes on as. To be called while there is one thread. Raises ProbeUnavailable."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = os.fork()
    if not process:
        status = 1
        try:
            _keep(there, ports, user)
            status = 0
        finally:
            os._exit(status)
    there.close()
    try:
        tap = KeptTap.introduced(here)
    except ProbeUnavailable:
        here.close()
        os.waitpid(process, 0)
        raise
    tap.process = process
    return tap


def why_unavailable() -> ProbeUnavailable | None:
    """Found by starting it, for no port; None where that can be. Nothing stays behind."""
    try:
        start_tap(frozenset(), current()).close()
    except ProbeUnavailable as reason:
        return reason
    return None


def _keep(connection: socket.socket, ports: frozenset[int], user: User) -> None:
    children.begin(NAME)
    children.close_all_but(connection.fileno())
    from probes.tls_tap.keeper import Keeper, needs  # noqa: PLC0415  what reads libraries is its alone

    try:
        keeper = Keeper(ports)
        keeper.attach()
    except ProbeUnavailable as reason:
        message = str(reason).removesuffix(f"; {reason.remedy}")
        connection.send(msgspec.json.encode(News(message=message, remedy=reason.remedy)))
        return
    keeper.introduce(connection)
    give_up(user, needs())
    keeper.run(connection)
