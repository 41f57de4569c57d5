"""Degraded copies of captures, made from their segments: what taps, mirrors and busy machines do to them."""

import random
from collections.abc import Callable, Iterable
from typing import Final

from probes.segment import FIN, SYN, Segment, reverse

Degrade = Callable[[list[Segment], random.Random], list[Segment]]

HEADERS_BYTES: Final = 66  # Ethernet, IPv4, TCP with time stamps


def lose(share: float) -> Degrade:
    """Each packet is missed with this probability."""
    return lambda segments, rng: [segment for segment in segments if rng.random() >= share]


def lose_bursts(share: float) -> Degrade:
    """As many packets are missed, but eight in a row: a full buffer."""

    def degrade(segments: list[Segment], rng: random.Random) -> list[Segment]:
        kept, missing = [], 0
        for segment in segments:
            if missing:
                missing -= 1
            elif rng.random() < share / 8:
                missing = 7
            else:
                kept.append(segment)
        return kept

    return degrade


def reorder(distance: int) -> Degrade:
    """Each packet comes up to so many places late."""

    def degrade(segments: list[Segment], rng: random.Random) -> list[Segment]:
        late = sorted(range(len(segments)), key=lambda place: place + rng.uniform(0, distance))
        return _retimed([segments[place] for place in late], segments)

    return degrade


def duplicate(share: float) -> Degrade:
    """Packets are seen twice, the copy up to 50 microseconds later, as on a bridge or the `any` interface."""

    def degrade(segments: list[Segment], rng: random.Random) -> list[Segment]:
        copies = [
            segment.replace(at_ns=segment.at_ns + rng.randint(1, 50_000))
            for segment in segments
            if rng.random() < share
        ]
        return sorted([*segments, *copies], key=lambda segment: segment.at_ns)

    return degrade


def snap(length: int) -> Degrade:
    """Only so many bytes of each packet were captured."""
    kept = length - HEADERS_BYTES
    return lambda segments, rng: [segment.replace(payload=segment.payload[:kept]) for segment in segments]


def midstream(share: float) -> Degrade:
    """The capture began late: this share of its packets is missing at the start."""
    return lambda segments, rng: segments[int(len(segments) * share) :]


def one_direction(*, from_watched_port: bool) -> Degrade:
    """An asymmetric tap: only what the servers sent, or only what the clients sent."""
    return lambda segments, rng: [
        segment for segment in segments if (segment.source_port in (25, 465, 587)) is from_watched_port
    ]


def resegment(sizes: Callable[[random.Random], int]) -> Degrade:
    """The same bytes, cut at other places."""

    def degrade(segments: list[Segment], rng: random.Random) -> list[Segment]:
        return [piece for segment in segments for piece in _pieces(segment, sizes, rng)]

    return degrade


def wrap_sequence(segments: Iterable[Segment]) -> list[Segment]:
    """Every connection's sequence numbers run over 2**32 after its first few bytes."""
    shifts: dict[bytes, int] = {}
    wrapped = []
    for segment in segments:
        flow = segment.flow
        if segment.flags & SYN or flow not in shifts:
            shifts[flow] = (1 << 32) - 20 - segment.sequence
        other = reverse(flow)
        if other not in shifts and segment.acknowledgement:
            shifts[other] = (1 << 32) - 20 - segment.acknowledgement
        wrapped.append(
            segment.replace(
                sequence=(segment.sequence + shifts[flow]) % (1 << 32),
                acknowledgement=(segment.acknowledgement + shifts.get(other, 0)) % (1 << 32)
                if segment.acknowledgement
                else 0,
            )
        )
    return wrapped


def _pieces(segment: Segment, sizes: Callable[[random.Random], int], rng: random.Random) -> Iterable[Segment]:
    if not segment.payload or segment.flags & SYN:
        yield segment
        return
    at = 0
    while at < segment.length:
        size = max(1, sizes(rng))
        payload = segment.payload[at : at + size]
        last = at + size >= segment.length
        yield segment.replace(
            sequence=(segment.sequence + at) % (1 << 32),
            length=len(payload),
            payload=payload,
            flags=segment.flags if last else segment.flags & ~FIN,
        )
        at += size


def _retimed(shuffled: list[Segment], original: list[Segment]) -> list[Segment]:
    """A packet that comes late has a late time stamp, too."""
    return [segment.replace(at_ns=placed.at_ns) for segment, placed in zip(shuffled, original, strict=True)]
