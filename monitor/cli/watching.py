"""The daemon behind `smtp-horizon watch`.

The main thread reads the probe, fills the table of sessions, counts and writes what ends. Another
thread takes snapshots of the metrics for the process that serves them, and only reads. Signals do no more
than set a flag, which the loop sees within a heartbeat.
"""

import errno
import logging
import math
import os
import signal
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, Self

import psutil

from monitor.cli.main import DONE, FAILED, CannotBegin
from monitor.cli.observers import Observers, SiteOptions
from monitor.cli.opener import Opener
from monitor.cli.privileges import Standing, give_up
from monitor.cli.probes import open_live_probe
from monitor.cli.service_manager import ServiceManager
from monitor.cli.serving import Serving, WebFiles
from monitor.files import check_regular, read_believed
from monitor.metrics.collector import MonitorCollector
from monitor.metrics.lag import Lag
from monitor.metrics.server import listen
from monitor.metrics.web.settings import WebSettings
from monitor.records import ReaderGoneError, RecordsWriter
from monitor.rights import User
from monitor.sessions.record import SessionRecord
from monitor.sessions.table import SessionTable
from probes.capabilities import Needs
from probes.probe import HEARTBEAT_SECONDS, CaptureInterrupted

if TYPE_CHECKING:
    from monitor.cli.tapping import KeptTap

ADDRESSES_EVERY_SECONDS: Final = (
    30.0  # a new address of ours is known within the time of a DHCP lease's change
)
DRAIN_SECONDS: Final = 2.0  # how long, after a signal, what was captured before it may take

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchSettings:
    interfaces: tuple[str, ...]
    probe: str
    """auto, ebpf or pyshark."""
    listen: tuple[str, int]
    records: str | None
    """A path, `-`, or None for no records."""
    web_config: str | None
    """A path, or None for plain HTTP that is open to all."""
    user: User
    """Whom to go on as."""
    tls_tap: bool
    """Read the envelope along where this machine's mail servers decrypt it."""
    site: SiteOptions


class Watching:
    """A watch from its beginning to its end; a context manager, which gives back what it took."""

    def __init__(self, settings: WatchSettings, opener: Opener, manager: ServiceManager) -> None:
        """Raises ProbeUnavailable or CannotBegin."""
        ports, records = settings.site.ports, settings.records
        self._web_config = settings.web_config
        self._lag = Lag()
        self._status = DONE
        self._stop_signal: int | None = None
        self._is_reopen_asked = False
        self._writer: RecordsWriter | None = None
        self._opener, self._user = opener, settings.user
        self._manager, self._interfaces = manager, ", ".join(settings.interfaces)
        self._standing: Standing
        """From when the probe is open."""
        # Before anything that takes time: a signal while the probe is being made is obeyed too.
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        signal.signal(signal.SIGINT, self._ask_to_stop)
        signal.signal(signal.SIGHUP, self._ask_to_reopen)
        self._resources = ExitStack()
        with self._resources:
            self._tap = self._start_tap(settings) if settings.tls_tap else None
            web = WebSettings()
            if settings.web_config is not None:
                web = web_settings(settings.web_config, opener, settings.user)
            # Now: a child has what its parent has.
            self._server = self._start_server(*settings.listen, web)
            self._observers = Observers(
                settings.site,
                own_addresses(),
                is_tapped=settings.tls_tap,
                to_read=opener.open_to_read,
                user=settings.user,
            )
            self._resources.callback(self._observers.close)
            if records is not None:
                self._writer = self._open_records(records, opener)
            self._probe = open_live_probe(settings.probe, settings.interfaces, ports, self._give_up)
            self._resources.callback(self._probe.close)
            self._table = SessionTable(ports, self._observers.site, self._on_record, sieve=self._probe.sieve)
            # Threads keep the privileges that they are born with: none before here.
            confinement = self._standing.confinement
            collector = MonitorCollector(
                self._observers, self._probe, self._table, self._lag, confinement, tap=self._tap
            )
            self._server.begin(collector)
            self._resources = self._resources.pop_all()
        _LOG.info(
            "watching %s on port %s with the %s probe",
            self._interfaces,
            ", ".join(map(str, sorted(ports))),
            self._probe.name,
        )
        self._standing.log()
        if self._tap is not None:
            _LOG.warning("the TLS tap is on: senders and recipients inside TLS are read and recorded, too")
            self._tend_tap(self._tap)
        _LOG.info("metrics are at %s", self._server.url)
        if records is not None:
            _LOG.info("session records go to %s", "standard output" if records == "-" else records)
        manager.ready(self._summary())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def run(self) -> int:
        """Until a signal or the capture's end. The exit status."""
        try:
            self._loop()
        except CaptureInterrupted as interruption:
            _LOG.error("%s", interruption)
            self._status = FAILED
        still_open = self._table.open_sessions
        self._take_tapped()
        self._table.close_all()
        if self._writer is not None and not self._writer.close():
            self._status = FAILED
        dropped = self._probe.counts.dropped.total()
        if dropped:
            _LOG.warning("packets lost before they could be read: %d", dropped)
        _LOG.info("ended; sessions that were still open: %d", still_open)
        return self._status

    def _loop(self) -> None:
        take, tick = self._table.segment, self._table.tick
        addresses_due = time.monotonic() + ADDRESSES_EVERY_SECONDS
        drain_until, tap_due = math.inf, 0.0
        for batch in self._probe.batches():
            # First: what was inside a connection is there before its last packet is read.
            self._take_tapped()
            for segment in batch:
                take(segment)
            now = time.monotonic()
            is_caught_up = not batch and self._probe.is_caught_up()
            if batch:
                self._lag.read_until(batch[-1].at_ns)
            else:
                self._lag.nothing_read(is_caught_up)
            if is_caught_up:
                # Nothing waits to be read, so the clock may go ahead of the packets.
                now_ns = time.time_ns()
                tick(now_ns)
                self._observers.tick(now_ns)
            if self._is_reopen_asked:
                self._is_reopen_asked = False
                self._reopen()
            if self._writer is not None:
                self._follow_records(self._writer)
            if self._server.has_ended:
                self._end_without_server()
            if self._stop_signal is not None:
                if drain_until == math.inf:
                    _LOG.info("ending: %s", signal.Signals(self._stop_signal).name)
                    drain_until = now + DRAIN_SECONDS
                    self._manager.stopping()
                    self._probe.stop()
                elif now >= drain_until:
                    _LOG.warning("what was captured last is left unread: it takes too long")
                    return
            if self._tap is not None and now >= tap_due:
                tap_due = now + HEARTBEAT_SECONDS
                self._tend_tap(self._tap)
            if now >= addresses_due:
                addresses_due = now + ADDRESSES_EVERY_SECONDS
                self._observers.ours.set_hosts(own_addresses())
                self._manager.status(self._summary())

    def _on_record(self, record: SessionRecord) -> None:
        is_written = None
        if self._writer is not None:
            try:
                is_written = self._writer.write(record)
            except ReaderGoneError:
                is_written = False
                self._end_without_reader()
            if not is_written:
                self._status = FAILED
        self._observers.record(record, is_written)

    def _start_tap(self, settings: WatchSettings) -> "KeptTap":
        from monitor.cli.tapping import start_tap  # noqa: PLC0415  it is asked for by few

        tap = start_tap(settings.site.ports, settings.user)
        self._resources.callback(tap.close)
        return tap

    def _take_tapped(self) -> None:
        if self._tap is not None and self._observers.tapped is not None:
            take = self._observers.tapped.event
            for event in self._tap.take():
                take(event)

    def _tend_tap(self, tap: "KeptTap") -> None:
        was_kept = tap.is_kept
        for line in tap.tend():
            _LOG.info("%s", line)
        if was_kept and not tap.is_kept:
            _LOG.error("the TLS tap has ended: its keeper is gone; the rest goes on")
            self._status = FAILED

    def _follow_records(self, writer: RecordsWriter) -> None:
        try:
            writer.follow()
        except ReaderGoneError:
            self._status = FAILED
            self._end_without_reader()

    def _end_without_reader(self) -> None:
        """Whoever reads our records has gone, as `| head` does: there is nothing to go on for."""
        if self._stop_signal is None:
            _LOG.warning("records: their reader has gone")
            self._stop_signal = signal.SIGPIPE

    def _end_without_server(self) -> None:
        """Privileges are given up, so it can't be started anew: that is for whoever started us."""
        if self._stop_signal is None:
            _LOG.error("the metrics server has ended, which it should not: ending, to be started anew")
            self._status = FAILED
            self._stop_signal = signal.SIGCHLD

    def _reopen(self) -> None:
        self._observers.reload()
        if self._web_config is not None:
            self._read_web_config_anew(self._web_config)
        if self._writer is not None and self._writer.reopen():
            _LOG.info("records reopened")

    def _summary(self) -> str:
        sessions = self._observers.tally.snapshot().sessions.total()
        return f"watching {self._interfaces} with the {self._probe.name} probe; {sessions:,} sessions so far"

    def _ask_to_stop(self, number: int, _: FrameType | None) -> None:
        self._stop_signal = number

    def _ask_to_reopen(self, _number: int, _: FrameType | None) -> None:
        self._is_reopen_asked = True

    def _give_up(self, needs: Needs) -> None:
        self._opener.seal()
        if self._tap is not None:
            needs = needs._replace(capabilities=needs.capabilities | self._tap.needs.capabilities)
        self._standing = give_up(self._user, needs)

    def _open_records(self, path: str, opener: Opener) -> RecordsWriter:
        try:
            writer = RecordsWriter(path, opener.open_to_append, opener.open_to_read, may_wait=False)
        except OSError as error:
            raise cannot_write_records(path, error) from error
        self._resources.callback(writer.close)
        return writer

    def _read_web_config_anew(self, path: str) -> None:
        from monitor.metrics.web.config import WebConfigError, load  # noqa: PLC0415

        contents: dict[str, bytes] = {}

        def read(file: Path) -> bytes:
            contents[str(file)] = content = _read_through(self._opener, self._user, file)
            return content

        try:
            load(path, read)
        except WebConfigError as error:
            _LOG.warning("%s; going on with what was read before", error)
        else:
            self._server.replace(WebFiles(path, contents))
            _LOG.info("web configuration read anew")

    def _start_server(self, host: str, port: int, web: WebSettings) -> Serving:
        server = Serving.start(listening(host, port), web, self._user)
        self._resources.callback(server.close)
        return server


def listening(host: str, port: int) -> socket.socket:
    """Raises CannotBegin."""
    try:
        return listen(host, port)
    except OSError as error:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        said, remedy = error.strerror, "name another address with --listen"
        if error.errno == errno.EADDRINUSE:
            from monitor.cli.listeners import listener_on  # noqa: PLC0415  it is seldom wanted

            if (who := listener_on(port)) is not None:
                said, remedy = f"{said} by {who}", f"stop that, or {remedy}"
        raise CannotBegin(f"cannot serve metrics on {where}: {said}; {remedy}") from error


def cannot_write_records(path: str, error: OSError) -> CannotBegin:
    return CannotBegin(f"cannot write records to {path}: {error.strerror}; name another file with --records")


def web_settings(path: str, opener: Opener, user: User) -> WebSettings:
    """Raises CannotBegin."""
    # YAML and bcrypt are for who has a file; and bcrypt can't be loaded any more once privileges are gone.
    from monitor.metrics.web import passwords  # noqa: F401, PLC0415
    from monitor.metrics.web.config import WebConfigError, load  # noqa: PLC0415

    try:
        return load(path, partial(_read_through, opener, user))
    except WebConfigError as error:
        raise CannotBegin(str(error)) from error


def _read_through(opener: Opener, user: User, path: Path) -> bytes:
    """The whole of a file, which may be root's alone. Raises OSError.

    Never of a pipe: at SIGHUP it is read again, and an empty web configuration lets everybody in.
    """
    descriptor = opener.open_to_read(str(path))
    try:
        check_regular(descriptor, str(path))
    except OSError:
        os.close(descriptor)
        raise
    return read_believed(descriptor, str(path), user)


def own_addresses() -> list[str]:
    """Of all interfaces, those that are down included."""
    return [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
