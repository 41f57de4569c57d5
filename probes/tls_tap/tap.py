"""TlsTap: the tap as `watch` has it. It needs no privilege: the keeper has them."""

import os
import socket
from typing import Final, Self

import msgspec

from probes.ebpf.clock import BootClock
from probes.ebpf.ring import Ring
from probes.probe import ProbeUnavailable
from probes.tls_tap.event import TapEvent
from probes.tls_tap.news import NEWS_BYTES, News
from probes.tls_tap.program import RING_BYTES, EventsLost, read_events

# Chosen as some ten thousand events: a moment's work.
BATCH_BYTES: Final = 1024 * 1024


class TlsTap:
    """For one thread; others may read `libraries` and `events_lost`."""

    def __init__(self, keeper: socket.socket, first: News, events: int, events_lost: int) -> None:
        """Made by `introduced`."""
        self._keeper = keeper
        self._clock = BootClock()
        self._events = events
        self._ring = Ring(events, RING_BYTES)
        self._lost = EventsLost(events_lost)
        self._said = first.said
        self.libraries = first.libraries
        """Files of TLS libraries that are attached."""
        self.events_lost = 0
        """As of the last `tend`."""
        self.is_kept = True
        """False when the keeper has ended, and with it the tap."""
        self._is_counted = True
        self.needs = self._lost.needs()
        """From now on, to count what is lost."""
        keeper.setblocking(False)

    @classmethod
    def introduced(cls, keeper: socket.socket) -> Self:
        """By a keeper at the other end, as `Keeper.introduce` does. Raises ProbeUnavailable."""
        answer, descriptors, _, _ = socket.recv_fds(keeper, NEWS_BYTES, 2)
        if not answer:
            raise ProbeUnavailable("the TLS tap's keeper ended early", "see `smtp-horizon doctor`")
        first = msgspec.json.decode(answer, type=News)
        if first.message:
            raise ProbeUnavailable(first.message, first.remedy)
        events, events_lost = descriptors
        return cls(keeper, first, events, events_lost)

    def take(self) -> list[TapEvent]:
        """Events that are ready, in their order; a great many at once only some of them."""
        taken = self._ring.take(BATCH_BYTES)
        return read_events(taken, self._clock) if taken else []

    def tend(self) -> list[str]:
        """To be called now and then. What there is to say, a line each."""
        self._clock.follow()
        try:
            self.events_lost = self._lost.count()
        except OSError as error:
            if self._is_counted:  # said once
                self._said.append(f"how many events of the TLS tap are lost is unknown ({error.strerror})")
            self._is_counted = False
        self._hear()
        said, self._said = self._said, []
        return said

    def _hear(self) -> None:
        while self.is_kept:
            try:
                answer = self._keeper.recv(NEWS_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                answer = b""
            if not answer:
                self.is_kept, self.libraries = False, 0
                return
            news = msgspec.json.decode(answer, type=News)
            self.libraries = news.libraries
            self._said += news.said

    def close(self) -> None:
        """The keeper ends. May be called twice."""
        self._keeper.close()
        self._ring.close()
        self._lost.close()
        if self._events >= 0:
            os.close(self._events)
        self._events = -1
