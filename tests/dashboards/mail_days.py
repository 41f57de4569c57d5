"""Days of a mail server, made of the records of real captures: who comes, when, and what goes wrong.

The sessions are real, and counted by the code that counts in a watch. Made up are their times, their clients'
addresses, how many come in an hour, the numbers of packets, and what encrypted sessions carry: messages of
others. The same seed gives the same days.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from heapq import heappop, heappush
from ipaddress import ip_address
from random import Random
from typing import Final

from msgspec.structs import replace

from monitor.anomalies import Anomaly
from monitor.sessions.record import (
    Auth,
    Data,
    Direction,
    Endpoint,
    Envelope,
    Location,
    SessionRecord,
    StarttlsOutcome,
    Tapped,
    TapResult,
    Transaction,
    TransactionOutcome,
)
from monitor.sessions.table import SessionTable
from probes.probe import DropSite, FilterVariant, PacketCounts, Sieve, Verdict
from probes.segment import Segment
from tests.degrade import lose_bursts
from tests.segments import PORTS, SITE, segments_of

DAY_SECONDS: Final = 86_400
HOUR_SECONDS: Final = 3_600

SESSIONS_A_DAY: Final = 4_000
"""Chosen as a small company's: three a minute, so that a rate over a few minutes is not all noise."""

OF_THE_HOUR: Final = (
    # How busy each hour (UTC) is, against the mean: office hours, and the machines that never sleep.
    *(0.5, 0.45, 0.4, 0.4, 0.45, 0.55, 0.8, 1.2, 1.6, 1.75, 1.7, 1.55),
    *(1.4, 1.5, 1.6, 1.55, 1.4, 1.2, 0.95, 0.8, 0.7, 0.65, 0.6, 0.55),
)
WEEKEND: Final = 0.6

ENCRYPTED_SHARE: Final = 0.80
"""Of the sessions, at the end."""
ENCRYPTED_GROWTH_A_DAY: Final = 0.004
"""Eighty of a hundred at the end, sixty-eight a month before."""
OUTBOUND_SHARE: Final = 0.15

CLIENTS: Final = tuple(
    # Of networks that nobody has (RFC 2544, RFC 3849), and each of another: greylisters look at networks. The
    # busiest come first.
    address
    for number in range(200)
    for address in (f"198.18.{number}.25", f"2001:db8:{number:x}::25")
)
_BY_TURNS: Final = ("DE", "US", "FR", "DE", "NL", "CN", "US", "AT", "BR", "IN", "DE", "CA")
COUNTRIES: Final = {
    # By turns, so that each country has busy clients and quiet ones; what is not in here is in no database.
    **{f"198.18.{number}.0/24": _BY_TURNS[number % len(_BY_TURNS)] for number in range(170)},
    "2001:db8::/42": "DE",
    "2001:db8:40::/42": "NL",
}
STRICT_CLIENTS: Final = frozenset(CLIENTS[4::9])
"""They go away where they get no TLS."""
OUR_SERVER: Final = "10.77.0.1"
"""The lab's own address, where most captures have their server."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that goes wrong for a while."""

    ended_before_end_seconds: int
    lasted_seconds: int

    def at(self, before_end_seconds: float) -> bool:
        begins = self.ended_before_end_seconds + self.lasted_seconds
        return self.ended_before_end_seconds < before_end_seconds <= begins


# All within the last day, and each at a time of its own, so that a picture shows one cause at a time.
PACKET_LOSS: Final = Happening(14 * HOUR_SECONDS, HOUR_SECONDS)
DISK_FULL: Final = Happening(17 * HOUR_SECONDS, 600)
STRIPPING: Final = Happening(9 * HOUR_SECONDS, 2700)
INTERFACE_DOWN: Final = Happening(4 * HOUR_SECONDS, 600)
TAP_OVERRUN: Final = Happening(12 * HOUR_SECONDS, 1200)
TAP_DETACHED: Final = Happening(6 * HOUR_SECONDS, 1800)

_LOST_SHARE: Final = 0.12  # of the packets, in the captures that stand for the hour of loss
_STRIPPED_SHARE: Final = 0.35
_GREYLISTED_SHARE: Final = 0.02
# From a minute over Postfix's and Exim's first retries to those who take their time.
_RETRY_AFTER_SECONDS: Final = (240, 360, 420, 900, 1_800, 7_200)

_ENCRYPTED: Final = frozenset({Envelope.HIDDEN, Envelope.PARTIAL})
_LIBRARIES: Final = 2  # OpenSSL's and GnuTLS'
_SEEN_INSIDE: Final = {
    TapResult.WHOLE: 0.965,
    TapResult.PARTIAL: 0.02,
    TapResult.UNSURE: 0.005,
    TapResult.MISSED: 0.01,
}
_OVERRUN_SHARE: Final = 0.5  # of the sessions, of which events are lost while too many come
# Who encrypts is more often a server that others run well: dark mail bounces more (who else reports
# failures?), and is put off and rejected less than mail in clear, where most of the spam programs are.
_DARK: Final = {"null": 0.12, "rejected": 0.05, "aborted": 0.02, "accepted": 0.81}
_RETRIED_INSIDE_SHARE: Final = 0.85
"""Mail servers try again; spam programs, of which more are in clear, do not."""
_FROM_ANOTHER_ADDRESS_SHARE: Final = 0.08
_DARK_MESSAGES: Final = (1, 1, 1, 1, 1, 1, 1, 2, 2, 4)
_DATA_TAKEN: Final = Data("DATA", 1249, 250)
_SUBMISSION: Final = frozenset({465, 587})
_LOGINS: Final = {"PLAIN": 0.6, "LOGIN": 0.3, "CRAM-MD5": 0.1}
_WRONG_PASSWORDS: Final = 0.1


def _of_capture(
    name: str, change: Callable[[list[Segment]], list[Segment]] | None = None
) -> list[SessionRecord]:
    """The records of a capture; what it leaves open was given up, as in a watch that runs on."""
    records: list[SessionRecord] = []
    table = SessionTable(PORTS, SITE, records.append)
    segments = segments_of(name)
    for segment in segments if change is None else change(segments):
        table.segment(segment)
    table.tick(segments[-1].at_ns + DAY_SECONDS * 10**9)
    return sorted(records, key=lambda record: record.start)


@dataclass(frozen=True, slots=True)
class Pools:
    """Records to draw from."""

    encrypted: tuple[SessionRecord, ...]
    clear: tuple[SessionRecord, ...]
    odd: tuple[SessionRecord, ...]
    """Refusals, failed handshakes, scans, passwords in clear, and what else the lab made on purpose."""
    stripped: tuple[SessionRecord, ...]
    lossy: tuple[SessionRecord, ...]
    refused: tuple[SessionRecord, ...]
    """Of clients that got no TLS, and went away."""
    greylisted: tuple[tuple[SessionRecord, SessionRecord], ...]
    """The attempt that a real postgrey put off, and the one that it took."""
    inside: dict[str, tuple[Transaction, ...]]
    """What dark sessions carry: transactions of those in clear, by outcome, or `null` for the null sender."""


@cache
def pools() -> Pools:
    mixed = _of_capture("mid") + _of_capture("interleaved") + _of_capture("ipv6")
    tls = [
        record
        for name in (
            "starttls_tls12",
            "starttls_tls13",
            "starttls_other_clients",
            "smtps_465",
            "submission_587",
        )
        for record in _of_capture(name)
    ]
    hidden = [record for record in [*mixed, *tls] if record.envelope is Envelope.HIDDEN]
    visible = [record for record in mixed if record.envelope is Envelope.VISIBLE]
    odd = [
        record
        for name in (
            *("scans", "starttls_aborts", "starttls_5xx", "starttls_454", "postfix_client", "auth_clear"),
            *("misc_commands", "timeouts", "multi_rcpt_reject", "pipelined", "submission_587", "abrupt_ends"),
            *("long_lines", "smtps_465"),
        )
        for record in _of_capture(name)
    ]
    attempts = _of_capture("greylist_postgrey")
    half = len(attempts) // 2
    return Pools(
        encrypted=tuple(hidden),
        clear=tuple(visible),
        odd=tuple(odd),
        stripped=tuple(
            record for record in _of_capture("striptls") if Anomaly.STARTTLS_MASKED in record.anomalies
        ),
        lossy=tuple(_of_capture("mid", lambda segments: lose_bursts(_LOST_SHARE)(segments, Random(1)))),
        refused=tuple(
            record
            for record in odd
            if record.envelope is Envelope.NONE and record.starttls.outcome is StarttlsOutcome.REFUSED
        ),
        greylisted=tuple(zip(attempts[:half], attempts[half:], strict=True)),
        inside=_by_kind([transaction for record in visible for transaction in record.transactions]),
    )


def _by_kind(transactions: Sequence[Transaction]) -> dict[str, tuple[Transaction, ...]]:
    kinds: dict[str, list[Transaction]] = {kind: [] for kind in _DARK}
    for transaction in transactions:
        kinds["null" if transaction.mail_from == "" else transaction.outcome].append(transaction)
    return {kind: tuple(found) for kind, found in kinds.items()}


@dataclass(slots=True)
class GivenProbe:
    """A probe whose numbers the days give."""

    name: str = "ebpf"
    sieve: Sieve | None = None
    filter_variant: FilterVariant | None = FilterVariant.FULL
    counts: PacketCounts = field(default_factory=PacketCounts)
    interfaces: dict[str, bool] = field(default_factory=lambda: {"eth0": True, "eth1": True})

    def batches(self) -> Iterator[Sequence[Segment]]:
        return iter(())

    def is_caught_up(self) -> bool:
        return True

    def interfaces_up(self) -> dict[str, bool]:
        return self.interfaces

    def stop(self) -> None:
        """Has nothing to stop."""

    def close(self) -> None:
        """Holds nothing."""


@dataclass(slots=True)
class GivenTable:
    open_sessions: int = 0
    handshakes_incomplete: int = 0
    strays: int = 0


@dataclass(slots=True)
class GivenTap:
    libraries: int = _LIBRARIES
    events_lost: int = 0


class MailDays:
    """Sessions in the order in which they end; with them the numbers of the probe, the table and the tap."""

    def __init__(
        self, end: int, locate: Callable[[str], Location | None], *, seed: int, a_day: int = SESSIONS_A_DAY
    ) -> None:
        """`end`: seconds since the epoch, when the days are over."""
        self.probe = GivenProbe()
        self.table = GivenTable()
        self.tap = GivenTap()
        self.lag_seconds = 0.0
        self._end = end
        self._a_day = a_day
        self._locate = locate
        self._random = Random(seed)
        self._random_inside = Random(f"{seed} inside")
        self._seed = seed
        self._due: list[tuple[float, int, SessionRecord]] = []
        """When each ends, a number that settles ties, and what it is."""
        self._number = 0
        self._weights = [1 / (place + 8) for place in range(len(CLIENTS))]

    def sessions(self, begin: float, stop: float) -> Iterator[tuple[SessionRecord, bool]]:
        """Those that end in these seconds, and whether their record could be written."""
        before_end = self._end - begin
        loses = PACKET_LOSS.at(before_end)
        for _ in range(self._how_many(begin, stop)):
            self._arrive(self._random.uniform(begin, stop), before_end)
        ended = 0
        while self._due and self._due[0][0] < stop:
            _, _, record = heappop(self._due)
            self._count_packets(record)
            ended += 1
            yield record, not DISK_FULL.at(before_end)
        self._count_others(ended, loses)
        self.probe.interfaces["eth1"] = not INTERFACE_DOWN.at(self._end - stop)
        self.tap.libraries = 0 if TAP_DETACHED.at(self._end - stop) else _LIBRARIES
        if TAP_OVERRUN.at(before_end):
            self.tap.events_lost += self._random_inside.randrange(40 * ended + 1)
        self.table.open_sessions = self._poisson(ended / (stop - begin) * 20)

    def _how_many(self, begin: float, stop: float) -> int:
        moment = datetime.fromtimestamp(begin, UTC)
        mean = self._a_day / DAY_SECONDS * (stop - begin) * OF_THE_HOUR[moment.hour]
        if moment.weekday() >= 5:
            mean *= WEEKEND
        if INTERFACE_DOWN.at(self._end - begin):
            mean *= 0.5
        return self._poisson(mean)

    def _poisson(self, mean: float) -> int:
        """Knuth's: how many of what comes at that mean rate."""
        limit, product, count = math.exp(-mean), self._random.random(), 0
        while product > limit:
            product *= self._random.random()
            count += 1
        return count

    def _arrive(self, at: float, before_end: float) -> None:
        draw = self._random.random
        if PACKET_LOSS.at(before_end) and draw() < 0.6:
            self._bring(at, self._random.choice(pools().lossy), self._client())
        elif STRIPPING.at(before_end) and draw() < _STRIPPED_SHARE:
            self._bring(at, self._random.choice(pools().stripped), self._client())
        elif draw() < _GREYLISTED_SHARE:
            client = self._newcomer()
            first, second = self._random.choice(pools().greylisted)
            self._bring(at, first, client)
            if draw() < 0.7:
                self._bring(
                    at + self._random.choice(_RETRY_AFTER_SECONDS) * (0.9 + draw() / 5), second, client
                )
        else:
            self._arrive_as_ever(at, before_end)

    def _arrive_as_ever(self, at: float, before_end: float) -> None:
        client, draw = self._client(), self._random.random
        if draw() < ENCRYPTED_SHARE - ENCRYPTED_GROWTH_A_DAY * before_end / DAY_SECONDS:
            self._bring_habit(at, pools().encrypted, client)
        elif client in STRICT_CLIENTS:
            self._bring(at, self._random.choice(pools().refused), client)
        elif draw() < 0.7:
            self._bring_habit(at, pools().clear, client)
        else:
            self._bring(at, self._random.choice(pools().odd), client)

    def _bring_habit(self, at: float, pool: tuple[SessionRecord, ...], client: str) -> None:
        """Most clients send the same few things again and again."""
        habit = Random(f"{self._seed} {client} {self._random.randrange(4)}")
        record = habit.choice(pool)
        if self._random.random() < OUTBOUND_SHARE and record.server.port == 25:
            record = replace(record, direction=Direction.OUTBOUND, greylisters={})
        self._bring(at, record, client)

    def _bring(
        self, at: float, record: SessionRecord, peer: str, inside: tuple[Transaction, ...] | None = None
    ) -> None:
        """The record, as if it had been that peer's, at that time. `inside`: what it carries, if encrypted;
        drawn if None."""
        ends_at = at + record.duration_seconds
        if record.direction is Direction.OUTBOUND:
            client, server = OUR_SERVER, peer
        else:
            record = replace(record, direction=Direction.INBOUND)
            client, server = peer, OUR_SERVER
        tapped = None
        if _is_decrypted_here(record):
            tapped = self._tapped(record, self._end - ends_at, inside)
            self._retry_inside(ends_at, record, peer, tapped.transactions)
        self._number += 1
        moved = replace(
            record,
            start=_rfc3339(at),
            end=_rfc3339(ends_at),
            client=Endpoint(client, 1024 + self._number % 60_000),
            server=Endpoint(server, record.server.port),
            client_location=self._locate(client),
            tapped=tapped,
        )
        heappush(self._due, (ends_at, self._number, moved))

    def _retry_inside(
        self, ended_at: float, record: SessionRecord, peer: str, seen: tuple[Transaction, ...]
    ) -> None:
        """Most of what was put off inside TLS comes again there, and is taken."""
        draw = self._random_inside.random
        put_off = tuple(taken for message in seen if (taken := _taken_later(message)) is not None)
        if put_off and draw() < _RETRIED_INSIDE_SHARE:
            wait = self._random_inside.choice(_RETRY_AFTER_SECONDS) * (0.9 + draw() / 5)
            if draw() < _FROM_ANOTHER_ADDRESS_SHARE:
                peer = str(ip_address(peer) + 1)
            self._bring(ended_at + wait, record, peer, put_off)

    def _tapped(
        self, record: SessionRecord, before_end: float, messages: tuple[Transaction, ...] | None
    ) -> Tapped:
        """What a tap on our server would have seen inside the encrypted session."""
        draw, choose = self._random_inside.random, self._random_inside.choices
        result = choose([*_SEEN_INSIDE], [*_SEEN_INSIDE.values()])[0]
        if TAP_OVERRUN.at(before_end) and draw() < _OVERRUN_SHARE:
            result = TapResult.PARTIAL
        if TAP_DETACHED.at(before_end):
            result = TapResult.MISSED
        if result in (TapResult.MISSED, TapResult.UNSURE):
            return Tapped(result)
        if messages is None:
            kinds = choose([*_DARK], [*_DARK.values()], k=self._random_inside.choice(_DARK_MESSAGES))
            messages = tuple(self._random_inside.choice(pools().inside[kind]) for kind in kinds)
        if record.server.port not in _SUBMISSION:
            return Tapped(result, messages)
        code = 535 if draw() < _WRONG_PASSWORDS else 235
        login = Auth(choose([*_LOGINS], [*_LOGINS.values()])[0], code)
        return Tapped(result, messages if code == 235 else (), (login,))

    def _client(self) -> str:
        return self._random.choices(CLIENTS, self._weights)[0]

    def _newcomer(self) -> str:
        """Whom nobody has seen, and greylisters put off."""
        if self._random.random() < 0.5:
            return f"198.19.{self._random.randrange(256)}.{self._random.randrange(1, 255)}"
        return f"2001:db8:{self._random.randrange(0x1000, 0x10000):x}::25"

    def _count_packets(self, record: SessionRecord) -> None:
        """About as many as the session's bytes need, and those of its beginning and end."""
        self.probe.counts.seen[Verdict.SEGMENT] += 10 + (record.bytes.client + record.bytes.server) // 700

    def _count_others(self, ended: int, loses: bool) -> None:
        seen, dropped = self.probe.counts.seen, self.probe.counts.dropped
        seen[Verdict.OTHER_PORT] += self._poisson(ended * 3)
        seen[Verdict.NOT_TCP] += self._poisson(ended)
        seen[Verdict.FRAGMENT] += self._poisson(ended / 50)
        seen[Verdict.MALFORMED] += self._poisson(ended / 500)
        self.table.handshakes_incomplete += self._poisson(ended / 8)
        self.table.strays += self._poisson(ended / 5)
        self.lag_seconds = self._random.uniform(0.001, 0.02)
        if loses:
            dropped[DropSite.RING_BUFFER] += self._poisson(ended * 6)
            self.lag_seconds += self._random.uniform(0.5, 2)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _taken_later(message: Transaction) -> Transaction | None:
    """The same message to those that were put off, all of whom take it; None where nobody was."""
    put_off = [recipient for recipient in message.recipients if recipient.code == 450]
    if not put_off:
        return None
    return replace(
        message,
        recipients=tuple(replace(recipient, code=250) for recipient in put_off),
        data=_DATA_TAKEN,
        outcome=TransactionOutcome.ACCEPTED,
    )


def _is_decrypted_here(record: SessionRecord) -> bool:
    return record.envelope in _ENCRYPTED and record.direction is not Direction.OUTBOUND
