"""The table of open connections: which one a segment belongs to, and when it is over.

A connection enters the table when its three-way handshake is complete; until then it is a line in a list of
half-open ones, cheap enough for a flood of SYNs, and leaves nothing but a count when nothing comes of it. One
whose handshake was not captured enters midstream, with the first segment that carries data.

It leaves with a record: a moment after both sides have closed or one has reset it (late and doubled packets
still belong to it), when its address and port pair is taken by a new connection, when it has been idle too
long, when the table is full, and when the capture ends.

The clock is the packets' own. It never runs backwards here, whatever the packets' time stamps do: after a
step back it goes on from where it was.

Memory is bounded three times: by the number of connections, by that of handshakes, and by what connections
keep beyond the little that each needs. Over the last bound the one that keeps most goes first, so that a
crowd which keeps much cannot push out those that keep little.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mypy_extensions import mypyc_attr

from monitor.sessions.reach import Reaches
from monitor.sessions.record import Ended, SessionRecord
from monitor.sessions.session import Session
from monitor.sessions.site import Site
from monitor.side import Side
from probes.probe import Sieve
from probes.segment import ACK, FIN, RST, SYN, Segment, reverse

_SECOND_NS: Final = 1_000_000_000
_SEQUENCE_MODULUS: Final = 1 << 32

_SWEEP_EVERY_NS: Final = _SECOND_NS // 4

_CLOCK_STEP_NS: Final = 60 * _SECOND_NS
"""A time stamp further back than this means that the clock was set, not that the packet is late. Chosen above
what the files or interfaces of one capture differ by."""

_ACKNOWLEDGED_LIMIT_BYTES: Final = 1 << 20
"""How far beyond its SYN a client can have been acknowledged by the first segment that we see of the server:
by no more than we would hold back."""

_SYN_DATA_FLOWS: Final = 1_024
_SYN_DATA_BYTES: Final = 2_048
"""Data in SYNs (RFC 7413) waits for the end of the handshake. Chosen as room for every real one, and none for
a flood: a SYN carries at most what one packet holds."""

_WORTH_LEAVING_OUT_BYTES: Final = 65_536
"""How many bytes that nobody needs must be to come for the probe to be told: chosen as what passes before it
could act on it."""

_SIZE_CLASSES: Final = 48  # bits of the largest number of bytes that a session could ever keep, and more


@dataclass(frozen=True, slots=True)
class Limits:
    """The table's bounds."""

    sessions: int = 65_536
    """Open connections. Chosen as ten times what a large mail server serves at once (Postfix's default is 100
    processes); each needs about 2 kB."""
    half_open: int = 65_536
    """Handshakes under way. The oldest make room for new ones, as in a SYN flood."""
    buffered_bytes: int = 64 << 20
    """Traffic kept by all sessions together because it can't be told yet what it is."""
    idle_seconds: float = 900.0
    """RFC 5321 section 4.5.3.2 lets the two sides wait up to 10 minutes for each other; half as much
    again."""
    half_open_seconds: float = 75.0
    """A SYN is answered, or given up, within that time (4.4BSD's connection timer)."""
    linger_seconds: float = 2.0
    """How long a closed connection takes late packets: several retransmission times (RFC 6298: 1 s at
    first)."""


@mypyc_attr(acyclic=True)
class _HalfOpen:
    __slots__ = ("at_ns", "client_first", "server_first", "since_ns", "syn_bytes")

    def __init__(
        self,
        at_ns: int,
        since_ns: int,
        client_first: int | None,
        server_first: int | None,
        *,
        syn_bytes: int = 0,
    ) -> None:
        self.at_ns: Final = at_ns
        """Its first packet's time stamp."""
        self.since_ns: Final = since_ns
        """The same by the table's clock."""
        self.client_first: Final = client_first
        """Sequence number of the client's first byte; None until it is known."""
        self.server_first = server_first
        self.syn_bytes: Final = syn_bytes
        """Data in its SYN (RFC 7413)."""

    def answered_by(self, acknowledgement: int) -> bool:
        """Does a SYN/ACK with this number answer its SYN? The data in it may be acknowledged or not."""
        if self.client_first is None:
            return False
        return (acknowledgement - self.client_first) % _SEQUENCE_MODULUS in (0, self.syn_bytes)


class SessionTable:
    """All connections on the watched ports."""

    def __init__(
        self,
        ports: frozenset[int],
        site: Site,
        on_record: Callable[[SessionRecord], None],
        limits: Limits | None = None,
        sieve: Sieve | None = None,
    ) -> None:
        """`sieve`: of a probe that leaves out what is not needed."""
        self._ports = ports
        self._sieve = sieve
        self._site = site
        self._on_record = on_record
        self._limits = limits or Limits()
        self._idle_ns = int(self._limits.idle_seconds * _SECOND_NS)
        self._half_open_ns = int(self._limits.half_open_seconds * _SECOND_NS)
        self._linger_ns = int(self._limits.linger_seconds * _SECOND_NS)
        self._flows: dict[bytes, Session] = {}
        """Both directions of each connection."""
        self._sessions: OrderedDict[Session, None] = OrderedDict()
        """Open ones, by last activity (to a second)."""
        self._closed: OrderedDict[Session, int] = OrderedDict()
        """Closed ones that linger, with the time when that began."""
        self._half_open: OrderedDict[bytes, _HalfOpen] = OrderedDict()
        self._syn_data: OrderedDict[bytes, Segment] = OrderedDict()
        """SYNs with data whose handshake is under way, or was given up."""
        self._keepers: tuple[dict[Session, None], ...] = tuple({} for _ in range(_SIZE_CLASSES))
        """Sessions that keep more than they need, by the number of bits in the number of bytes."""
        self._buffered_bytes = 0
        self._now_ns = 0
        self._behind_ns = 0
        """How far the packets' clock was set back in all."""
        self._next_sweep_ns = 0
        self._handshakes_incomplete = 0
        self.strays = 0
        """Segments without data that belong to no known connection, and those from an end to itself."""

    @property
    def open_sessions(self) -> int:
        return len(self._sessions)

    @property
    def buffered_bytes(self) -> int:
        """What all sessions keep beyond the little that each needs."""
        return self._buffered_bytes

    @property
    def handshakes_incomplete(self) -> int:
        """Handshakes that never became a connection."""
        there = 0 if self._sieve is None else self._sieve.handshakes_incomplete
        return self._handshakes_incomplete + there

    def segment(self, segment: Segment) -> None:
        """Takes a segment with one end on a watched port."""
        flow, flags = segment.flow, segment.flags
        at_ns = segment.at_ns + self._behind_ns
        if at_ns > self._now_ns:
            self._now_ns = at_ns
            if at_ns >= self._next_sweep_ns:
                self._sweep()
        elif at_ns < self._now_ns - _CLOCK_STEP_NS:
            self._behind_ns += self._now_ns - at_ns
        session = self._flows.get(flow)
        if session is None or flags & SYN:
            self._handshake(flow, segment, session)
            return
        self._deliver(session, _sender(session, flow), segment, flags, segment.length)

    def tick(self, now_ns: int) -> None:
        """The clock has moved on, though no packet may have come."""
        now_ns += self._behind_ns
        if now_ns > self._now_ns:
            self._now_ns = now_ns
            self._sweep()

    def close_all(self) -> None:
        """The capture has ended: every connection becomes a record."""
        while self._closed:
            self._finish(next(iter(self._closed)), None)
        while self._sessions:
            self._finish(next(iter(self._sessions)), Ended.CAPTURE_ENDED)
        self._handshakes_incomplete += len(self._half_open)
        self._half_open.clear()

    # ------------------------------------------------------------------ handshakes

    def _handshake(self, flow: bytes, segment: Segment, session: Session | None) -> None:
        """A segment of a connection that is not open yet, or one with a SYN."""
        flags = segment.flags
        back = reverse(flow)
        if flow == back:
            self.strays += 1  # from an end to itself, as attacks are: nobody can tell its two sides apart
            return
        if flags & SYN:
            if flags & RST:
                self.strays += 1
            elif flags & ACK:
                self._syn_ack(back, segment, session)
            elif segment.destination_port in self._ports:
                self._syn(flow, segment, session)
            return
        from_client = flow in self._half_open
        if from_client or back in self._half_open:
            client_flow = flow if from_client else back
            if flags & RST:
                del self._half_open[client_flow]
                self._handshakes_incomplete += 1
            elif self._completes(self._half_open[client_flow], segment, from_client=from_client):
                self._open(client_flow, self._half_open.pop(client_flow))
                self.segment(segment)
            return
        if not segment.length or flags & RST:
            self.strays += 1
            return
        to_server = segment.destination_port in self._ports
        self._open(flow if to_server else back, _HalfOpen(segment.at_ns, self._now_ns, None, None))
        self.segment(segment)

    def _syn(self, flow: bytes, segment: Segment, session: Session | None) -> None:
        first = (segment.sequence + 1) % _SEQUENCE_MODULUS
        overtaken: list[Segment] | None = None
        if session is not None:
            side = _sender(session, flow)
            if session in self._closed:
                self._finish(session, None)
            elif session.streams.begins_at(side, first):
                return  # the SYN once more
            else:
                overtaken = self._forget_if_overtaken(session, side, first)
        known = self._half_open.get(flow)
        if known is not None:
            if known.client_first == first:
                return
            self._handshakes_incomplete += 1
        self._half_open[flow] = _HalfOpen(segment.at_ns, self._now_ns, first, None, syn_bytes=segment.length)
        if segment.length:
            self._syn_data[flow] = segment.replace(payload=segment.payload[:_SYN_DATA_BYTES])
            if len(self._syn_data) > _SYN_DATA_FLOWS:
                self._syn_data.popitem(last=False)
        if len(self._half_open) > self._limits.half_open:
            self._half_open.popitem(last=False)
            self._handshakes_incomplete += 1
        for late in overtaken or ():
            self.segment(late)

    def _syn_ack(self, flow: bytes, segment: Segment, session: Session | None) -> None:
        """The server's answer. `flow`: from the client."""
        if segment.source_port not in self._ports:
            return
        client_first = segment.acknowledgement
        server_first = (segment.sequence + 1) % _SEQUENCE_MODULUS
        known = self._half_open.get(flow)
        overtaken: list[Segment] | None = None
        if session is not None:
            side = _sender(session, segment.flow)
            streams = session.streams
            if streams.begins_at(side, server_first):
                return  # the SYN/ACK once more
            if streams.begins_at(Side(1 - side), client_first):
                streams.start(side, server_first)  # it comes late
                return
            if known is not None and not known.answered_by(client_first):
                return  # the answer to another SYN than the last
            overtaken = self._forget_if_overtaken(session, side, server_first)
            if overtaken is None:
                # The server has taken the pair for a new connection.
                self._finish(session, None if session in self._closed else Ended.IDLE)
        if known is None:
            # Its SYN was not captured.
            self._half_open[flow] = _HalfOpen(segment.at_ns, self._now_ns, client_first, server_first)
        elif known.answered_by(client_first):
            known.server_first = server_first
        for late in overtaken or ():
            self.segment(late)

    def _forget_if_overtaken(self, session: Session, side: Side, first: int) -> list[Segment] | None:
        """A connection that began midstream, and only now comes its handshake: its packets were captured in
        another order than they were sent in. Forgets it, and returns its segments, to be taken again; None
        where that is not what happened."""
        segments = session.streams.gathered_behind(side, first)
        if segments is not None:
            self._leave(session)
        return segments

    @staticmethod
    def _completes(known: _HalfOpen, segment: Segment, *, from_client: bool) -> bool:
        """Does this segment show that the handshake is complete?

        A server sends nothing but its SYN/ACK before it is; a client's first segment acknowledges that.
        """
        if not segment.flags & ACK or known.client_first is None:
            return False
        if not from_client:
            return (
                segment.acknowledgement - known.client_first
            ) % _SEQUENCE_MODULUS <= _ACKNOWLEDGED_LIMIT_BYTES
        if known.server_first is not None:
            return segment.acknowledgement == known.server_first or segment.length > 0
        # Without the SYN/ACK the server's first number is not known. It may only be late; data can't wait for
        # it.
        return segment.sequence == known.client_first and bool(segment.length or segment.flags & FIN)

    def _open(self, flow: bytes, known: _HalfOpen) -> None:
        """`flow`: from the client."""
        while len(self._sessions) + len(self._closed) >= self._limits.sessions:
            if self._closed:
                self._finish(next(iter(self._closed)), None)
            else:
                self._evict(next(iter(self._sessions)))
        midstream = known.client_first is None
        session = Session(flow, known.at_ns, Reaches(self._site.greylisters), midstream=midstream)
        if known.client_first is not None:
            session.streams.start(Side.CLIENT, known.client_first)
        if known.server_first is not None:
            session.streams.start(Side.SERVER, known.server_first)
        self._flows[flow] = self._flows[reverse(flow)] = session
        self._sessions[session] = None
        session.touched_ns = self._now_ns
        syn = self._syn_data.pop(flow, None)
        if syn is not None and session.streams.begins_at(Side.CLIENT, (syn.sequence + 1) % _SEQUENCE_MODULUS):
            session.segment(Side.CLIENT, syn)

    # ------------------------------------------------------------------ open connections

    def _deliver(self, session: Session, side: Side, segment: Segment, flags: int, length: int) -> None:
        session.segment(side, segment)
        if length:
            if session.may_buffer:
                self._account(session)
            if self._sieve is not None and side is Side.CLIENT:
                self._leave_out(self._sieve, session, segment.flow)
        elif flags == ACK and session.touched_ns > self._now_ns - _SECOND_NS:
            return  # a pure acknowledgement; a quarter of all segments are
        if session not in self._sessions:
            return  # closed, or evicted just now
        if session.streams.closed:
            del self._sessions[session]
            self._closed[session] = self._now_ns
        elif self._now_ns - session.touched_ns > _SECOND_NS:
            session.touched_ns = self._now_ns
            self._sessions.move_to_end(session)

    def _leave_out(self, sieve: Sieve, session: Session, flow: bytes) -> None:
        """Tells the probe of what comes next from the client, if that is much and nobody needs it."""
        sequence, length = session.streams.unneeded(Side.CLIENT)
        if length >= _WORTH_LEAVING_OUT_BYTES:
            sieve.leave_out(flow, sequence, length)

    def _account(self, session: Session) -> None:
        """Keeps the sum of what sessions keep, and its bound."""
        before = session.accounted_bytes
        now = session.buffered_bytes
        if now == before:
            return
        session.accounted_bytes = now
        self._buffered_bytes += now - before
        if now.bit_length() != before.bit_length():
            self._keepers[before.bit_length()].pop(session, None)
            if now:
                self._keepers[now.bit_length()][session] = None
        while self._buffered_bytes > self._limits.buffered_bytes:
            most = next(keepers for keepers in reversed(self._keepers) if keepers)
            self._evict(next(iter(most)))

    def _evict(self, session: Session) -> None:
        self._finish(session, None if session in self._closed else Ended.EVICTED)

    def _finish(self, session: Session, unseen_end: Ended | None) -> None:
        """Takes a connection out of the table and hands on its record."""
        self._leave(session)
        if self._sieve is not None:
            for segment in self._sieve.take_leftover(session.flow, session.last_at_ns):
                session.segment(_sender(session, segment.flow), segment)
        self._on_record(session.record(self._site, unseen_end))

    def _leave(self, session: Session) -> None:
        if self._closed.pop(session, None) is None:
            del self._sessions[session]
        del self._flows[session.flow]
        del self._flows[reverse(session.flow)]
        self._buffered_bytes -= session.accounted_bytes
        self._keepers[session.accounted_bytes.bit_length()].pop(session, None)

    def _was_touched(self, sieve: Sieve, session: Session) -> bool:
        """Whether packets of a session that seems idle came, and were left out by the probe."""
        at_ns = sieve.last_at_ns(session.flow)
        if at_ns is None or self._now_ns - (at_ns + self._behind_ns) >= self._idle_ns:
            return False
        session.touched_ns = at_ns + self._behind_ns
        self._sessions.move_to_end(session)
        return True

    def _sweep(self) -> None:
        """Ends what has lingered or idled long enough."""
        now_ns = self._now_ns
        self._next_sweep_ns = now_ns + _SWEEP_EVERY_NS
        while self._closed:
            session, since_ns = next(iter(self._closed.items()))
            if now_ns - since_ns < self._linger_ns:
                break
            self._finish(session, None)
        while self._sessions:
            session = next(iter(self._sessions))
            if now_ns - session.touched_ns < self._idle_ns:
                break
            if self._sieve is None or not self._was_touched(self._sieve, session):
                self._finish(session, Ended.IDLE)
        while self._half_open:
            flow, known = next(iter(self._half_open.items()))
            if now_ns - known.since_ns < self._half_open_ns:
                break
            del self._half_open[flow]
            self._handshakes_incomplete += 1


def _sender(session: Session, flow: bytes) -> Side:
    """Whose segments those of a session's flow are."""
    return Side.CLIENT if flow == session.flow else Side.SERVER
