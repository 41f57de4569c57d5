"""What was found, as two tables of Markdown: for the terminal, and for docs/kernels.md."""

import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from probes.capabilities import Capability
from tests.kernels.verifier import Verdict
from tests.kernels.work import Outcome

BEGIN: Final = "<!-- written by make kernels ALL=1 -->"
END: Final = "<!-- end of what it writes -->"


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """A row for each set of programs, a column for each kernel."""
    kernels = list(dict.fromkeys(verdict.kernel for verdict in verdicts))
    names = list(dict.fromkeys(verdict.name for verdict in verdicts))
    rows = [["programs", *map(_kernel_name, kernels)]]
    for name in names:
        cells = [[one for one in verdicts if (one.name, one.kernel) == (name, kernel)] for kernel in kernels]
        rows.append([name, *(_cell(cell) for cell in cells)])
    return table(rows)


def _kernel_name(release: str) -> str:
    """The machine that this runs on is anybody's: the rest of its kernel's name says nothing to others."""
    if release != platform.release():
        return release
    return f"{'.'.join(release.split('.')[:2])} (this machine)"


def _cell(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "–"
    if refused := [one for one in verdicts if one.refused]:
        return f"rejected: {', '.join(one.program for one in refused)}"
    most = f"{max(one.walked for one in verdicts):,}"
    return most if len(verdicts) == 1 else f"{len(verdicts)} load, at most {most}"


def work_table(outcomes: Sequence[Outcome]) -> str:
    rows = [["the work", *(outcome.kernel for outcome in outcomes)]]

    def row(name: str, cells: Iterable[str]) -> None:
        rows.append([name, *cells])

    accounts = [outcome.account for outcome in outcomes]
    row("compiled", ("there, by bcc" if outcome.with_compiler else "outside" for outcome in outcomes))
    row("sessions; records that agree", (_sessions(outcome) for outcome in outcomes))
    row("of these IPv6, 802.1Q", (f"{account.get('six')}, {account.get('tagged')}" for account in accounts))
    row("seen whole inside TLS: OpenSSL, GnuTLS", (_tapped(outcome) for outcome in outcomes))
    row("filter", (", ".join(account.get("filters", ())) or "?" for account in accounts))
    row("packets not needed, dropped", (_packets(outcome) for outcome in outcomes))
    row("capabilities of watch afterwards", (_capabilities(outcome) for outcome in outcomes))
    row("seconds, all in all", (f"{outcome.seconds:.0f}" for outcome in outcomes))
    row("faults", (str(len(outcome.faults)) if outcome.faults else "none" for outcome in outcomes))
    return table(rows)


def _sessions(outcome: Outcome) -> str:
    account = outcome.account
    wrong = len(account.get("against_clients", ())) + sum(
        len(told["against_log"]) for told in account["servers"].values()
    )
    return f"{account.get('sessions')}; {'all' if not wrong else f'{wrong} differences'}"


def _tapped(outcome: Outcome) -> str:
    whole = outcome.account.get("tapped", {})
    return ", ".join(str(whole.get(server)) for server in ("postfix", "exim"))


def _packets(outcome: Outcome) -> str:
    account = outcome.account
    return f"{account.get('unneeded', 0):,.0f}, {account.get('dropped', 0):,.0f}"


def _capabilities(outcome: Outcome) -> str:
    threads = [one for one in outcome.account.get("processes", ()) if one["is_watch"]]
    held = {int(one["CapPrm"], 16) for one in threads}
    return ", ".join(_names(one) for one in sorted(held)) or "?"


def _names(held: int) -> str:
    """As in `CapPrm` of proc(5), one bit each."""
    numbers = [number for number in range(held.bit_length()) if held >> number & 1]
    known = {capability.value: f"CAP_{capability.name}" for capability in Capability}
    return " and ".join(known.get(number, str(number)) for number in numbers) or "none"


def table(rows: Sequence[Sequence[str]]) -> str:
    """As Markdown has it, in columns of even width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    head, *body = rows
    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, body)])


def write(page: Path, tables: Sequence[str], about: str) -> None:
    """Puts the tables in the place that the page has for them."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the tables: {BEGIN} ... {END}")
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    text = "\n\n".join([f"{when}: {about}", *tables])
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
