"""Who keeps the tap attached: the part that needs privileges, in a process of its own.

    keeper  ── what it attached, and how much ──▶  TlsTap, in `watch`
       ▲                                              ▲
       │ processes that read from watched ports       │ events
       └──────────────── the kernel ──────────────────┘

It reads /proc and the files of libraries, and nothing of mail. What it has attached is gone when it ends, and
it ends with the process that began it.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from typing import Final

import msgspec

from probes.capabilities import Capability, Needs
from probes.ebpf.loading import load
from probes.ebpf.ring import Ring
from probes.probe import ProbeUnavailable
from probes.tls_tap.attachments import Attachments
from probes.tls_tap.availability import check
from probes.tls_tap.mapped import libraries_of
from probes.tls_tap.news import News
from probes.tls_tap.program import (
    ARRIVAL_BYTES,
    ARRIVALS,
    EVENTS,
    EVENTS_LOST,
    ON_RECEIVE,
    build,
)
from probes.tls_tap.servers import mail_servers
from probes.tls_tap.tracing import Attached, at_tracepoint, this_machine, wanted_to_attach

_LINES: Final = 50
_LINE_CHARACTERS: Final = 250
"""Of what is said at once: no more than fits into a message, in UTF-8 and escaped."""

LOOK_EVERY_SECONDS: Final = 60.0
"""For servers and libraries that have come and that the kernel does not tell of: a library that was replaced
before its server starts anew, or a server that nobody has spoken to. Chosen as it takes 0.2 s where thousands
of processes are."""
_ARRIVAL: Final = struct.Struct("=8xI4x")
"""The ring buffer's header of the record, a process, and what fills it up to 8 bytes."""


def needs() -> Needs:
    """Of a keeper that is attached: to look into other users' processes, to open what only they may, and to
    attach to what comes."""
    return Needs(
        frozenset({Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH, wanted_to_attach()}),
        system_calls=("perf_event_open", "openat2"),
    )


class Keeper:
    def __init__(self, ports: frozenset[int]) -> None:
        """Raises ProbeUnavailable."""
        self._ports = ports
        self._received = check()
        loaded = load(build(self._ports, this_machine(), self._received))
        self._programs, self._maps = loaded.programs, loaded.maps
        self._arrivals = Ring(self._maps[ARRIVALS], ARRIVAL_BYTES)
        self._attachments = Attachments(self._programs)
        self._receiving: Attached | None = None
        self._out_of_reach: set[str] = set()
        self._said: list[str] = []

    def attach(self) -> None:
        """To all that is here. Raises ProbeUnavailable."""
        try:
            self._receiving = at_tracepoint(self._programs[ON_RECEIVE], self._received)
        except OSError as error:
            raise ProbeUnavailable(
                f"the TLS tap can't be attached ({error.strerror})", "see `smtp-horizon doctor`"
            ) from None
        self._look()

    def detach(self) -> None:
        """From all of it. May be called twice."""
        self._attachments.close()
        if self._receiving is not None:
            self._receiving.close()

    @property
    def descriptors(self) -> list[int]:
        """Of the ring buffer with the events, and of the count of those that were lost."""
        return [self._maps[EVENTS], self._maps[EVENTS_LOST]]

    def introduce(self, connection: socket.socket) -> None:
        """Hands over what it takes to read the events."""
        socket.send_fds(connection, [msgspec.json.encode(self._news())], self.descriptors)

    def run(self, connection: socket.socket) -> None:
        """Until the other end is closed."""
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        poll.register(self._maps[ARRIVALS], select.POLLIN)
        look_at = time.monotonic() + LOOK_EVERY_SECONDS
        while True:
            ready = dict(poll.poll(max(0.0, look_at - time.monotonic()) * 1000))
            if connection.fileno() in ready:
                return
            before = len(self._attachments)
            for process in self._arrived():
                self._said += self._attachments.attach(libraries_of(process))
            if time.monotonic() >= look_at:
                self._look()
                look_at = time.monotonic() + LOOK_EVERY_SECONDS
            if self._said or len(self._attachments) != before:
                connection.send(msgspec.json.encode(self._news()))

    def _look(self) -> None:
        """For servers, and what they have mapped, or would."""
        for server in mail_servers(self._ports).seen:
            self._said += self._attachments.attach(server.libraries)
            if server.why_out_of_reach is not None and len(self._out_of_reach) < _LINES:
                said = f"{server.name} {server.why_out_of_reach}"
                self._said += {said} - self._out_of_reach
                self._out_of_reach.add(said)

    def _arrived(self) -> Iterable[int]:
        return [process for (process,) in _ARRIVAL.iter_unpack(self._arrivals.take(ARRIVAL_BYTES))]

    def _news(self) -> News:
        said, self._said = self._said[:_LINES], []
        return News(len(self._attachments), [_shown(line) for line in said])

    def close(self) -> None:
        """Takes everything off. A process that ends need not call it."""
        self.detach()
        self._arrivals.close()
        for descriptor in (*self._programs.values(), *self._maps.values()):
            os.close(descriptor)


def _shown(line: str) -> str:
    """Names in it may be anything."""
    return "".join(character if character.isprintable() else "?" for character in line[:_LINE_CHARACTERS])
