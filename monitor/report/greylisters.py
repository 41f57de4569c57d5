"""The part of the report that speaks of greylisters: what each could do, what other policies would change,
who comes back, and what the simulated ones would have decided."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from monitor.greylisters import MODELS
from monitor.greylisters.greylite import Greylite
from monitor.metrics.tally import Counts
from monitor.peers import After, GivenUp, Peers, Return
from monitor.report.findings import Advice
from monitor.report.layout import breakdown, count, indented, number, plain_table, title
from monitor.sessions.record import By, Reach
from monitor.simulation.simulation import Simulation
from monitor.simulation.tallies import Decision, Fate

_HEADINGS: Final[Mapping[Reach, str]] = {
    Reach.DECIDED: "decided",
    Reach.BYPASSED: "bypassed",
    Reach.BLIND: "blind",
    Reach.STALLED: "stalled",
    Reach.NO_ENVELOPE: "nothing",
    Reach.UNKNOWN: "unknown",
}
_CAUSES: Final[Mapping[str, str]] = {
    By.STARTTLS: "by STARTTLS",
    By.AUTH: "by AUTH",
    By.DATA: "by DATA",
    By.IMPLICIT_TLS: "by TLS from the first byte",
}
_AFTER: Final[Mapping[After, str]] = {
    After.PUT_OFF: "mail (4xx)",
    After.STARTTLS_REFUSED: "STARTTLS refused",
    After.STARTTLS_FAILED: "STARTTLS failed",
}
_RETURNS: Final[Mapping[Return, str]] = {
    Return.CLEAR: "clear",
    Return.OTHER_ADDRESS: "other IP",
    Return.DARK: "dark",
    Return.NEVER: "never",
}
_DECISIONS: Final[Mapping[str, str]] = {
    Decision.DEFERRED: "put off",
    Decision.PASSED_ON_RETRY: "passed on retry",
    Decision.PASSED_KNOWN: "passed as known",
    Decision.UNREAD_TLS: "let through unread for TLS",
    Decision.UNREAD_OTHER: "let through unread for AUTH or DATA",
    Decision.OUT_OF_SIGHT: "out of our sight",
    Decision.STALLED: "stalled",
    Decision.UNKNOWN: "unknown",
}
_FATES: Final[Mapping[str, str]] = {
    Fate.RETRIED: "came again",
    Fate.NEVER_RETRIED: "never did",
    Fate.ACCEPTED_MEANWHILE: "had no reason to",
    Fate.REFUSED_MEANWHILE: "refused for good",
    Fate.RELEASED: "released with their address",
    Fate.FORGOTTEN: "forgotten",
    Fate.UNKNOWN: "unknown",
}


def what_they_could_do(counts: Counts) -> Iterable[RenderableType]:
    """One line for each program. Nothing where all sessions were outbound."""
    if not counts.greylister_sessions:
        return
    yield title("What a program that watches the stream could have done")
    table = plain_table()
    table.add_column("program")
    for heading in _HEADINGS.values():
        table.add_column(heading, justify="right")
    for model in MODELS:
        of_model = _by_reach(counts, model.name)
        table.add_row(model.name.replace("_", " "), *(number(of_model[reach]) for reach in _HEADINGS))
    yield indented(table)
    causes: Counter[str] = Counter()
    for (name, reach, by), sessions in counts.greylister_sessions.items():
        if name == Greylite.name and reach in (Reach.BYPASSED, Reach.BLIND):
            causes[by] += sessions
    if causes:
        yield indented(breakdown("greylite lost its sight", causes, _CAUSES))
    legend = "nothing: no envelope to decide on; recordio decides nothing, but logs it"
    yield indented(Text(legend, style="dim"))


def what_would_change(advice: Advice) -> Iterable[RenderableType]:
    """Other policies, over the same traffic. Nothing where greylite would have missed nothing."""
    if not advice.missed:
        return
    yield title("What would bring sessions back into sight that greylite misses")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style="bold")
    grid.add_column()
    if advice.by_starttls:
        grid.add_row(number(advice.by_starttls), f"STARTTLS not offered (DENY_TLS=1): {_price(advice)}")
    grid.add_row(number(advice.missed), "a greylister that keys on the address alone (jgreylist, postscreen)")
    grid.add_row(number(advice.missed), "a policy service of the mail server (postgrey and friends)")
    yield indented(grid)


def _price(advice: Advice) -> str:
    gone, untested = advice.of_peers_that_require_tls, advice.of_peers_never_tested
    return f"{number(gone)} of peers that leave without TLS, {number(untested)} of peers never tested"


def who_came_back(peers: Peers) -> Iterable[RenderableType]:
    """Nothing where nothing was put off."""
    if not any(peers.put_off.values()):
        return
    yield title("What was put off, and how it came again")
    table = plain_table()
    table.add_column("put off", no_wrap=True)
    for heading in ("times", *_RETURNS.values(), "pending", "unknown"):
        table.add_column(heading, justify="right")
    for after, name in _AFTER.items():
        if peers.put_off[after]:
            ways = [peers.returns.get((after, how), 0) for how in _RETURNS]
            in_doubt = sum(peers.given_up[after, why] for why in GivenUp)
            numbers = (peers.put_off[after], *ways, peers.pending[after], in_doubt)
            table.add_row(name, *map(number, numbers))
    yield indented(table)


def what_if(simulation: Simulation | None) -> Iterable[RenderableType]:
    """What the greylisters that are simulated would have decided."""
    if simulation is None:
        return
    for (greylister,) in simulation.pending:
        decisions = {choice.value: simulation.decisions.get((greylister, choice), 0) for choice in Decision}
        fates = {fate.value: simulation.fates.get((greylister, fate), 0) for fate in Fate}
        yield title(f"If {greylister} stood here")
        yield indented(breakdown("decisions", decisions, _DECISIONS))
        waiting = f"{count(simulation.pending[greylister,], 'triplet')} still to come again"
        yield indented(breakdown(waiting, fates, _FATES))


def _by_reach(counts: Counts, greylister: str) -> Counter[str]:
    sums: Counter[str] = Counter()
    for (name, reach, _by), sessions in counts.greylister_sessions.items():
        if name == greylister:
            sums[reach] += sessions
    return sums
