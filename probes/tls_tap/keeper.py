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

from probes.capabilities import Capability, Needs, only_in_effect
from probes.ebpf.loading import load
from probes.ebpf.ring import Ring
from probes.probe import ProbeUnavailable
from probes.tls_tap.attachments import Attachments
from probes.tls_tap.availability import why_out_of_the_question
from probes.tls_tap.mapped import libraries_of
from probes.tls_tap.news import News
from probes.tls_tap.program import (
    ARRIVAL_BYTES,
    ARRIVALS,
    EVENTS,
    EVENTS_LOST,
    ON_RECEIVE,
    RECEIVED,
    build,
)
from probes.tls_tap.servers import mail_servers
from probes.tls_tap.tracing import at_function, at_tracepoint, this_machine, tracepoint

_LOOKING: Final = frozenset({Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH})
"""To look into other users' processes, and to open what only they may."""

_NEWS_LINES: Final = 100

LOOK_EVERY_SECONDS: Final = 60.0
"""For servers and libraries that have come and that the kernel does not tell of: a library that was replaced
before its server starts anew, or a server that nobody has spoken to. Chosen as it takes 0.2 s where thousands
of processes are."""
_ARRIVAL: Final = struct.Struct("=8xI4x")
"""The ring buffer's header of the record, a process, and what fills it up to 8 bytes."""


class Keeper:
    def __init__(self, ports: frozenset[int]) -> None:
        """Raises ProbeUnavailable."""
        if (reason := why_out_of_the_question()) is not None:
            raise reason
        self._ports = ports
        received = tracepoint(*RECEIVED)
        self._programs, self._maps = load(build(self._ports, this_machine(), received))
        self._arrivals = Ring(self._maps[ARRIVALS], ARRIVAL_BYTES)
        self._attachments = Attachments(self._programs)
        try:
            self._receiving = at_tracepoint(self._programs[ON_RECEIVE], received)
        except OSError as error:
            raise ProbeUnavailable(
                f"the TLS tap can't be attached ({error.strerror})", "see `smtp-horizon doctor`"
            ) from None
        self.needs: Final = Needs(
            _LOOKING | {self._what_attaches()}, system_calls=("perf_event_open", "openat2")
        )
        """From now on."""
        self._out_of_reach: set[str] = set()
        self._said: list[str] = []
        self._look()

    def introduce(self, connection: socket.socket) -> None:
        """Hands over what it takes to read the events."""
        descriptors = [self._maps[EVENTS], self._maps[EVENTS_LOST]]
        socket.send_fds(connection, [msgspec.json.encode(self._news())], descriptors)

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

    def _what_attaches(self) -> Capability:
        """Tried, not guessed: stable kernels have taken the change of 6.16, which asks for more."""
        with only_in_effect(*_LOOKING, Capability.PERFMON):
            try:
                # Nobody runs this file.
                at_function(next(iter(self._programs.values())), __file__, 0, at_return=False).close()
            except PermissionError:
                return Capability.SYS_ADMIN
        return Capability.PERFMON

    def _look(self) -> None:
        """For servers, and what they have mapped, or would."""
        for server in mail_servers(self._ports).seen:
            for libraries in (server.mapped, server.installed):
                self._said += self._attachments.attach(libraries.values())
            if server.why_out_of_reach is not None:
                said = f"{server.name} {server.why_out_of_reach}"
                self._said += {said} - self._out_of_reach
                self._out_of_reach.add(said)

    def _arrived(self) -> Iterable[int]:
        return [process for (process,) in _ARRIVAL.iter_unpack(self._arrivals.take(ARRIVAL_BYTES))]

    def _news(self) -> News:
        said, self._said = self._said[:_NEWS_LINES], []
        return News(len(self._attachments), said)

    def close(self) -> None:
        """Takes everything off. A process that ends need not call it."""
        self._attachments.close()
        self._receiving.close()
        self._arrivals.close()
        for descriptor in (*self._programs.values(), *self._maps.values()):
            os.close(descriptor)
