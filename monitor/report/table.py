"""How the findings look in a terminal: 80 columns, and as good without colour."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from monitor.anomalies import Anomaly
from monitor.metrics.labels import IncompleteReason, ReplyClass, Visibility
from monitor.metrics.tally import Counts
from monitor.report.findings import Funnel, Observed, Sight, advice, by_label, funnel, sight
from monitor.report.greylisters import what_if, what_they_could_do, what_would_change, who_came_back
from monitor.report.layout import (
    breakdown,
    count,
    indented,
    listed,
    number,
    percent,
    plain_table,
    size,
    title,
)
from monitor.sessions.record import Envelope, StarttlsOutcome, TransactionOutcome
from probes.probe import DropSite, PacketCounts, Verdict

WIDTH_MAX: Final = 80  # what fits everywhere, mails and tickets too
BAR_WIDTH: Final = 60
FUNNEL_BAR_WIDTH: Final = 28
OBSOLETE_TLS: Final = {"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"}  # RFC 6176, RFC 7568, RFC 8996

MEANINGS: Final = {
    Anomaly.CLEARTEXT_AUTH: "a login (AUTH) was sent in clear",
    Anomaly.STARTTLS_MASKED: "STARTTLS was overwritten in flight",
    Anomaly.STARTTLS_INJECTION: "commands slipped in before TLS began",
    Anomaly.RESPONSE_INJECTION: "replies slipped in before TLS began",
    Anomaly.CLEARTEXT_AFTER_TLS: "clear text after encryption had begun",
    Anomaly.TLS_WITHOUT_STARTTLS: "TLS from the start on a clear-text port",
    Anomaly.BARE_LF: "line feeds without carriage return",
    Anomaly.UNAUTHORIZED_PIPELINING: "did not wait for replies where it must",
    Anomaly.EARLY_TALKER: "spoke before the server's banner",
    Anomaly.LINE_TOO_LONG: "a line over the limits of RFC 5321",
    Anomaly.REPLY_MISMATCH: "a reply that answers no command",
    Anomaly.LIST_OVERFLOW: "more than a record has room for",
}

_FELL_OUT: Final[Mapping[str, str]] = {
    StarttlsOutcome.NOT_OFFERED: "not offered",
    StarttlsOutcome.MASKED: "masked in flight",
    StarttlsOutcome.UNUSED: "offered but not asked for",
    StarttlsOutcome.REFUSED: "refused",
    StarttlsOutcome.FAILED: "handshake failed",
    StarttlsOutcome.ABANDONED: "abandoned",
}
_TRANSACTION_OUTCOMES: Final[Mapping[str, str]] = {outcome: outcome.value for outcome in TransactionOutcome}
_REPLY_CLASSES: Final[Mapping[str, str]] = {
    ReplyClass.POSITIVE: "accepted (2xx)",
    ReplyClass.TRANSIENT: "put off (4xx)",
    ReplyClass.PERMANENT: "refused (5xx)",
    ReplyClass.NONE: "without a reply",
    ReplyClass.OTHER: "answered otherwise",
}
_INCOMPLETE: Final[Mapping[str, str]] = {
    IncompleteReason.GAP: "packets missing",
    IncompleteReason.MIDSTREAM: "beginning missing",
    IncompleteReason.TRUNCATED: "packets cut short",
    IncompleteReason.IDLE: "gone silent",
    IncompleteReason.EVICTED: "table full",
    IncompleteReason.CAPTURE_ENDED: "open at the capture's end",
}
_DROPS: Final[Mapping[str, str]] = {
    DropSite.KERNEL: "by the kernel",
    DropSite.INTERFACE: "by the interface",
    DropSite.RING_BUFFER: "for want of ring buffer",
    DropSite.FRAGMENTS: "as incomplete fragments",
}


def print_report(console: Console, observed: Observed) -> None:
    console.width = min(console.width, WIDTH_MAX)
    with console.capture() as captured:
        console.print(Group(*_parts(console, observed)))
    # rich fills each line up with blanks, which nobody wants in a file or a mail.
    console.file.writelines(line.rstrip() + "\n" for line in captured.get().splitlines())


def _parts(console: Console, observed: Observed) -> Iterable[RenderableType]:
    counts = observed.counts
    everything = sight(counts)
    yield Text("How much of this mail is beyond the reach of a stream watcher?", style="bold")
    if everything.sessions:
        yield from _answer(console, everything, counts)
        yield _ports(counts, observed.ports)
        yield from _starttls(console, funnel(counts))
        yield from _tls(counts)
        yield from _mail(counts, everything)
        yield from what_they_could_do(counts)
        yield from what_would_change(advice(counts, observed.peers.dark_sessions))
        yield from who_came_back(observed.peers)
        yield from what_if(observed.simulation)
        yield from _countries(counts)
        yield from _anomalies(counts)
    else:
        watched = listed([port for port in observed.ports if port.isdigit()])
        yield indented(f"Nobody knows: no session was seen on port {watched}.")
    yield from _capture(counts, observed.packets, observed.handshakes_incomplete, everything)


def _answer(console: Console, everything: Sight, counts: Counts) -> Iterable[RenderableType]:
    whole = everything.with_mail
    if not whole:
        yield indented(
            f"There was none: {count(everything.sessions, 'session')}, and no mail in any of them."
        )
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style="bold")
    grid.add_column()
    aside = f" (without {number(everything.none)} that carried no mail)" if everything.none else ""
    of_sessions = f"of sessions: {number(everything.hidden)} of {number(whole)}{aside}"
    grid.add_row(percent(everything.hidden, whole), of_sessions)
    if everything.unknown:
        least, most = percent(everything.hidden, whole), percent(everything.hidden_at_most, whole)
        undecided = count(everything.unknown, "session")
        grid.add_row("", f"between {least} and {most}: {undecided} not captured well enough to tell")
    octets = by_label(counts.bytes, 1)
    encrypted, whole_bytes = octets[Visibility.ENCRYPTED], octets.total()
    grid.add_row(
        percent(encrypted, whole_bytes),
        f"of bytes: {size(encrypted)} of {size(whole_bytes)}",
    )
    yield indented(grid)
    yield indented(_bar(console, everything))


def _bar(console: Console, everything: Sight) -> RenderableType:
    """One bar for all sessions with mail; each kind has its own fill, so that it reads without colour."""
    fills = "#?+." if console.options.ascii_only else "█▓▒░"
    kinds = (
        ("hidden", everything.hidden, fills[0], "green"),
        ("unknown", everything.unknown, fills[1], "yellow"),
        ("partly visible", everything.partial, fills[2], "magenta"),
        ("visible", everything.visible, fills[3], "red"),
    )
    bar, legend = Text(), Text()
    for (name, sessions, fill, style), width in zip(
        kinds, _shares([kind[1] for kind in kinds], BAR_WIDTH), strict=True
    ):
        bar.append(fill * width, style=style)
        if sessions:
            legend.append(f"{fill} ", style=style)
            legend.append(f"{name}   ")
    return Group(bar, legend)


def _shares(parts: Sequence[int], width: int) -> list[int]:
    """Widths in proportion, together `width`; what isn't nothing gets at least one column."""
    whole = sum(parts)
    widths = [max(1, part * width // whole) if part else 0 for part in parts]
    widths[parts.index(max(parts))] += width - sum(widths)
    return widths


def _ports(counts: Counts, ports: Sequence[str]) -> RenderableType:
    table = plain_table()
    table.add_column("port")
    for heading in ("sessions", "hidden", "partial", "visible", "unknown", "no mail", "enc. bytes"):
        table.add_column(heading, justify="right")
    rows = [(port, sight(counts, port)) for port in ports]
    rows = [(port, of_port) for port, of_port in rows if of_port.sessions]
    if len(rows) > 1:
        rows.append(("all", sight(counts)))
    for port, of_port in rows:
        numbers = (
            of_port.sessions,
            of_port.hidden,
            of_port.partial,
            of_port.visible,
            of_port.unknown,
            of_port.none,
        )
        encrypted, whole = 0, 0
        for (bytes_port, visibility), octets in counts.bytes.items():
            if port in (bytes_port, "all"):
                whole += octets
                encrypted += octets if visibility == Visibility.ENCRYPTED else 0
        table.add_row(port, *(number(value) for value in numbers), percent(encrypted, whole))
    legend = "hidden: encrypted before any MAIL; partial: after one; visible: never"
    return Group(title("By port"), indented(table), indented(Text(legend, style="dim")))


def _starttls(console: Console, steps: Funnel) -> Iterable[RenderableType]:
    if not steps.reached and not steps.unknown:
        return
    yield title("STARTTLS")
    if steps.reached:
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(justify="right")
        table.add_column(justify="right")
        table.add_column()
        fill = "#" if console.options.ascii_only else "█"
        for name, sessions in (
            ("EHLO answered in clear", steps.reached),
            ("STARTTLS offered", steps.offered),
            ("asked for", steps.requested),
            ("established", steps.established),
        ):
            width = max(1, sessions * FUNNEL_BAR_WIDTH // steps.reached) if sessions else 0
            bar = Text(fill * width, style="green" if name == "established" else "blue")
            table.add_row(name, number(sessions), percent(sessions, steps.reached), bar)
        yield indented(table)
    if steps.fell_out:
        yield indented(breakdown("fell out on the way", steps.fell_out, _FELL_OUT))
    if steps.unknown:
        yield indented(f"not captured well enough to tell: {number(steps.unknown)}")


def _tls(counts: Counts) -> Iterable[RenderableType]:
    versions = by_label(counts.tls_handshakes, 1)
    if versions:
        yield title("TLS versions")
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(justify="right")
        table.add_column(justify="right")
        for version, sessions in sorted(versions.items(), reverse=True):
            remark = "obsolete" if version in OBSOLETE_TLS else ""
            table.add_row(version, number(sessions), percent(sessions, versions.total()), remark)
        yield indented(table)


def _mail(counts: Counts, everything: Sight) -> Iterable[RenderableType]:
    messages, recipients = by_label(counts.messages, 1), by_label(counts.recipients, 1)
    authentications = by_label(counts.auth, 1)
    yield title("Mail that a stream watcher could read")
    if messages:
        yield indented(
            breakdown(count(messages.total(), "message"), messages, _TRANSACTION_OUTCOMES),
        )
        yield indented(breakdown(count(recipients.total(), "recipient"), recipients, _REPLY_CLASSES))
    else:
        yield indented("none")
    if authentications:
        names = {name: name for name in sorted(authentications)}
        yield indented(
            breakdown(f"{count(authentications.total(), 'AUTH command')} in clear", authentications, names)
        )
    if everything.hidden:
        hidden = count(everything.hidden, "hidden session")
        yield indented(f"What the {hidden} carried cannot be counted from outside.")


def _countries(counts: Counts) -> Iterable[RenderableType]:
    """By sessions, most first."""
    sessions, hidden = by_label(counts.country_sessions, 0), Counter[str]()
    if not sessions.total():
        return
    for (country, envelope), number_of in counts.country_sessions.items():
        hidden[country] += number_of if envelope == Envelope.HIDDEN else 0
    yield title("Countries")
    table = plain_table()
    table.add_column("country")
    table.add_column("sessions", justify="right")
    table.add_column("hidden", justify="right")
    for country, seen in sorted(sessions.items(), key=lambda item: (-item[1], item[0])):
        if seen:
            table.add_row(country, number(seen), number(hidden[country]))
    yield indented(table)


def _anomalies(counts: Counts) -> Iterable[RenderableType]:
    found = by_label(counts.anomalies, 0)
    if not found:
        return
    yield title("Anomalies")
    table = plain_table()
    table.add_column("anomaly")
    table.add_column("sessions", justify="right")
    table.add_column("what happened")
    for name, sessions in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(name, number(sessions), MEANINGS[Anomaly(name)])
    yield indented(table)


def _capture(
    counts: Counts, packets: PacketCounts, handshakes_incomplete: int, everything: Sight
) -> Iterable[RenderableType]:
    yield title("How well it was captured")
    seen, smtp = packets.seen.total(), packets.seen[Verdict.SEGMENT] + packets.seen[Verdict.UNNEEDED]
    yield indented(f"{count(seen, 'packet')} read, {number(smtp)} of them on the watched ports")
    unreadable = packets.seen[Verdict.MALFORMED] + packets.seen[Verdict.UNSUPPORTED]
    if unreadable:
        yield indented(f"{count(unreadable, 'packet')} could not be read")
    dropped = {site.value: lost for site, lost in packets.dropped.items()}
    if packets.dropped.total():
        yield indented(breakdown(f"{count(packets.dropped.total(), 'packet')} lost", dropped, _DROPS))
    else:
        yield indented("no packet known to be lost")
    incomplete = by_label(counts.sessions_incomplete, 0)
    if incomplete:
        yield indented(breakdown("sessions not seen whole", incomplete, _INCOMPLETE))
    elif everything.sessions:
        yield indented("every session seen whole")
    if handshakes_incomplete:
        yield indented(f"{count(handshakes_incomplete, 'connection')} never got past the TCP handshake")
