"""What the numbers say, before anybody thinks of how it looks."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from monitor.metrics.tally import Counts
from monitor.sessions.record import Envelope, StarttlsOutcome

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
class Reach:
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


def reach(counts: Counts, port: str | None = None) -> Reach:
    """Of one port, or of all."""
    by_envelope: Counter[str] = Counter()
    for (session_port, _direction, _channel, envelope), sessions in counts.sessions.items():
        if port in (None, session_port):
            by_envelope[envelope] += sessions
    return Reach(
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


def by_label(counter: Counter[tuple[str, ...]], position: int) -> Counter[str]:
    """Sums over all labels but the one at `position`."""
    sums: Counter[str] = Counter()
    for labels, value in counter.items():
        sums[labels[position]] += value
    return sums
