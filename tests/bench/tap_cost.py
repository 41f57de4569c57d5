"""What the TLS tap costs a mail server: one Postfix, with probes in its TLS library and without, by turns.

A virtual machine's figures drift within a minute, so turns are short, and each is held against its neighbour.
Nobody but the mail server and its clients has work: what `watch` takes is another measurement.
"""

from dataclasses import dataclass

from rich.console import Console

from probes.ebpf.ring import Ring
from probes.tls_tap.keeper import Keeper
from probes.tls_tap.program import RING_BYTES
from tests.bench import traffic
from tests.bench.figures import Spread, microseconds, print_table, significant
from tests.bench.goals import Goal
from tests.bench.scale import Scale
from tests.bench.watched import host_seconds
from tests.lab.network import Network
from tests.lab.packages import ensure

MOST: float = 1.02
"""How much more processor time the mail server may take with the tap than without."""
_PORTS = frozenset({25, 465, 587})
_WARM_SESSIONS = 20  # after each change: processes take up the probes as they go


@dataclass(frozen=True, slots=True)
class Measured:
    sessions: int
    """Of each turn."""
    with_tap: list[float]
    """Seconds of the server's processor time, turn by turn."""
    without: list[float]


def measure(scale: Scale) -> Measured:
    """Raises LabUnavailableError, OSError, ProbeUnavailable, RuntimeError."""
    ensure()
    measured = Measured(scale.tap_sessions, [], [])
    with Network(addresses=1, on_disk=True) as network, traffic.real_postfix(network):
        keeper = Keeper(_PORTS)
        events = Ring(keeper.descriptors[0], RING_BYTES)
        for turn in range(scale.tap_rounds):
            for is_attached in (True, False) if turn % 2 else (False, True):
                if is_attached:
                    keeper.attach()
                traffic.starttls_clients(network, _WARM_SESSIONS)
                events.take(RING_BYTES)
                before = host_seconds(network.server, [])
                traffic.starttls_clients(network, scale.tap_sessions)
                taken = host_seconds(network.server, []) - before
                (measured.with_tap if is_attached else measured.without).append(taken)
                if bool(events.take(RING_BYTES)) is not is_attached:
                    raise RuntimeError("the tap told of nothing, or did when it was off")
                keeper.detach()
        events.close()
        keeper.close()
    return measured


def goals(measured: Measured) -> list[Goal]:
    ratio = Spread.of_ratios(measured.with_tap, measured.without)
    return [Goal("TLS tap, Postfix, STARTTLS: server's processor time with it / without", MOST, ratio)]


def show(console: Console, measured: Measured) -> None:
    def row(name: str, turns: list[float]) -> list[str]:
        return [name, Spread.of(taken / measured.sessions for taken in turns).text(microseconds)]

    print_table(
        console,
        f"TLS tap, {len(measured.without)} turns each of {measured.sessions} sessions with STARTTLS; "
        "median (least to most)",
        ["Postfix", "processor time, µs a session"],
        [
            row("with the tap", measured.with_tap),
            row("without", measured.without),
            ["with / without", Spread.of_ratios(measured.with_tap, measured.without).text(significant)],
        ],
    )
