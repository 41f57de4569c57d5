"""What the numbers say, before anybody thinks of how it looks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from monitor.greylisters.greylite import Greylite
from monitor.metrics.tally import Counts
from monitor.peers import Peers, TlsNeed
from monitor.sessions.record import By, Envelope, Reach, StarttlsOutcome
from monitor.simulation.simulation import Simulation
from probes.probe import PacketCounts

_FELL_OUT: Final = (
    StarttlsOutcome.NOT_OFFERED,
    StarttlsOutcome.MASKED,
    StarttlsOutcome.UNUSED,
    StarttlsOutcome.REFUSED,
    StarttlsOutcome.FAILED,
    StarttlsOutcome.ABANDONED,
)
"""Ends short of encryption, in the order of the steps."""


@dataclass(frozen=True, slots=True)
class Sight:
    """How many sessions a stream watcher can see into."""

    hidden: int
    partial: int
    visible: int
    unknown: int
    none: int

    @property
    def with_mail(self) -> int:
        """Sessions that carried mail or may have: scans and broken-off sessions say nothing about mail."""
        return self.hidden + self.partial + self.visible + self.unknown

    @property
    def sessions(self) -> int:
        return self.with_mail + self.none

    @property
    def hidden_at_most(self) -> int:
        """If all that was not captured well enough to tell had been encrypted."""
        return self.hidden + self.unknown


@dataclass(frozen=True, slots=True)
class Observed:
    """All that a report is made of."""

    counts: Counts
    ports: Sequence[str]
    """The values of the label `port`, in the order in which they are shown."""
    packets: PacketCounts
    handshakes_incomplete: int
    peers: Peers
    simulation: Simulation | None


@dataclass(frozen=True, slots=True)
class Advice:
    """What other policies would bring back into the sight of a greylister like greylite."""

    missed: int
    """Sessions that it could not decide on: passed unread, blind, stalled."""
    by_starttls: int
    """Those that would come back if STARTTLS were not offered, or would not come at all."""
    of_peers_that_require_tls: int
    """Of these: their peers went away when they got no TLS."""
    of_peers_never_tested: int
    """Of these: their peers always got it."""


@dataclass(frozen=True, slots=True)
class Funnel:
    """How far STARTTLS came, each step a part of the one before."""

    reached: int
    """An EHLO was answered in clear."""
    offered: int
    """STARTTLS was in the answer, or was asked for all the same."""
    requested: int
    established: int
    fell_out: dict[str, int]
    not_reached: int
    """TLS from the first byte, or the session ended before an EHLO was answered."""
    unknown: int


def sight(counts: Counts, port: str | None = None) -> Sight:
    """Of one port, or of all."""
    by_envelope: Counter[str] = Counter()
    for (session_port, _direction, _channel, envelope), sessions in counts.sessions.items():
        if port in (None, session_port):
            by_envelope[envelope] += sessions
    return Sight(
        hidden=by_envelope[Envelope.HIDDEN],
        partial=by_envelope[Envelope.PARTIAL],
        visible=by_envelope[Envelope.VISIBLE],
        unknown=by_envelope[Envelope.UNKNOWN],
        none=by_envelope[Envelope.NONE],
    )


def funnel(counts: Counts) -> Funnel:
    outcomes = by_label(counts.starttls, 2)
    established = outcomes[StarttlsOutcome.ESTABLISHED]
    requested = established + sum(
        outcomes[outcome]
        for outcome in (StarttlsOutcome.REFUSED, StarttlsOutcome.FAILED, StarttlsOutcome.ABANDONED)
    )
    offered = requested + outcomes[StarttlsOutcome.UNUSED]
    return Funnel(
        reached=offered + outcomes[StarttlsOutcome.NOT_OFFERED] + outcomes[StarttlsOutcome.MASKED],
        offered=offered,
        requested=requested,
        established=established,
        fell_out={outcome.value: outcomes[outcome] for outcome in _FELL_OUT if outcomes[outcome]},
        not_reached=outcomes[StarttlsOutcome.NOT_REACHED],
        unknown=outcomes[StarttlsOutcome.UNKNOWN],
    )


def advice(counts: Counts, dark_sessions: Mapping[tuple[TlsNeed], int]) -> Advice:
    """`dark_sessions`: those that STARTTLS hid, by what their peers did when they got no TLS."""
    missed = by_starttls = 0
    for (greylister, reach, by), sessions in counts.greylister_sessions.items():
        if greylister == Greylite.name and reach in (Reach.BYPASSED, Reach.BLIND, Reach.STALLED):
            missed += sessions
            by_starttls += sessions if by == By.STARTTLS else 0
    return Advice(
        missed=missed,
        by_starttls=by_starttls,
        of_peers_that_require_tls=dark_sessions[TlsNeed.REQUIRES,],
        of_peers_never_tested=dark_sessions[TlsNeed.UNTESTED,],
    )


def by_label(counter: Counter[tuple[str, ...]], position: int) -> Counter[str]:
    """Sums over all labels but the one at `position`."""
    sums: Counter[str] = Counter()
    for labels, value in counter.items():
        sums[labels[position]] += value
    return sums
