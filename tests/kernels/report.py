"""What was found, as two tables of Markdown: for the terminal, and for docs/kernels.md."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.kernels.verifier import Verdict
from tests.kernels.work import Outcome

BEGIN: Final = "<!-- written by make kernels ALL=1 -->"
END: Final = "<!-- end of what it writes -->"


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """A row for each set of programs, a column for each kernel."""
    kernels = list(dict.fromkeys(verdict.kernel for verdict in verdicts))
    names = list(dict.fromkeys(verdict.name for verdict in verdicts))
    rows = [["programs", *kernels]]
    for name in names:
        cells = [[one for one in verdicts if (one.name, one.kernel) == (name, kernel)] for kernel in kernels]
        rows.append([name, *(_cell(cell) for cell in cells)])
    return table(rows)


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
    return ", ".join(f"{one:#x}" if one else "none" for one in sorted(held)) or "?"


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
