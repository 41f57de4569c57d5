"""How the findings look in a terminal: 80 columns, and as good without colour."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from monitor.anomalies import Anomaly
from monitor.metrics.families import IncompleteReason, ReplyClass, Visibility
from monitor.metrics.tally import Counts
from monitor.report.findings import Funnel, Reach, by_label, funnel, reach
from monitor.sessions.record import StarttlsOutcome, TransactionOutcome
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


def print_report(
    console: Console, counts: Counts, ports: Sequence[str], packets: PacketCounts, handshakes_incomplete: int
) -> None:
    """`ports`: the values of the label `port`, in the order in which they are shown."""
    console.width = min(console.width, WIDTH_MAX)
    with console.capture() as captured:
        console.print(Group(*_parts(console, counts, ports, packets, handshakes_incomplete)))
    # rich fills each line up with blanks, which nobody wants in a file or a mail.
    console.file.writelines(line.rstrip() + "\n" for line in captured.get().splitlines())


def _parts(
    console: Console, counts: Counts, ports: Sequence[str], packets: PacketCounts, handshakes_incomplete: int
) -> Iterable[RenderableType]:
    everything = reach(counts)
    yield Text("How much of this mail is beyond the reach of a stream watcher?", style="bold")
    if everything.sessions:
        yield from _answer(console, everything, counts)
        yield _ports(counts, ports)
        yield from _starttls(console, funnel(counts))
        yield from _tls(counts)
        yield from _mail(counts, everything)
        yield from _anomalies(counts)
    else:
        watched = _listed([port for port in ports if port.isdigit()])
        yield _indented(f"Nobody knows: no session was seen on port {watched}.")
    yield from _capture(counts, packets, handshakes_incomplete, everything)


def _answer(console: Console, everything: Reach, counts: Counts) -> Iterable[RenderableType]:
    whole = everything.with_mail
    if not whole:
        yield _indented(
            f"There was none: {_count(everything.sessions, 'session')}, and no mail in any of them."
        )
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style="bold")
    grid.add_column()
    aside = f" (without {_number(everything.none)} that carried no mail)" if everything.none else ""
    of_sessions = f"of sessions: {_number(everything.hidden)} of {_number(whole)}{aside}"
    grid.add_row(percent(everything.hidden, whole), of_sessions)
    if everything.unknown:
        least, most = percent(everything.hidden, whole), percent(everything.hidden_at_most, whole)
        undecided = _count(everything.unknown, "session")
        grid.add_row("", f"between {least} and {most}: {undecided} not captured well enough to tell")
    octets = by_label(counts.bytes, 1)
    encrypted, whole_bytes = octets[Visibility.ENCRYPTED], octets.total()
    grid.add_row(
        percent(encrypted, whole_bytes),
        f"of bytes: {size(encrypted)} of {size(whole_bytes)}",
    )
    yield _indented(grid)
    yield _indented(_bar(console, everything))


def _bar(console: Console, everything: Reach) -> RenderableType:
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
    table = _table()
    table.add_column("port")
    for heading in ("sessions", "hidden", "partial", "visible", "unknown", "no mail", "enc. bytes"):
        table.add_column(heading, justify="right")
    rows = [(port, reach(counts, port)) for port in ports]
    rows = [(port, of_port) for port, of_port in rows if of_port.sessions]
    if len(rows) > 1:
        rows.append(("all", reach(counts)))
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
        table.add_row(port, *(_number(number) for number in numbers), percent(encrypted, whole))
    legend = "hidden: encrypted before any MAIL; partial: after one; visible: never"
    return Group(_title("By port"), _indented(table), _indented(Text(legend, style="dim")))


def _starttls(console: Console, steps: Funnel) -> Iterable[RenderableType]:
    if not steps.reached and not steps.unknown:
        return
    yield _title("STARTTLS")
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
            table.add_row(name, _number(sessions), percent(sessions, steps.reached), bar)
        yield _indented(table)
    if steps.fell_out:
        yield _indented(_breakdown("fell out on the way", steps.fell_out, _FELL_OUT))
    if steps.unknown:
        yield _indented(f"not captured well enough to tell: {_number(steps.unknown)}")


def _tls(counts: Counts) -> Iterable[RenderableType]:
    versions = by_label(counts.tls_handshakes, 1)
    if versions:
        yield _title("TLS versions")
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(justify="right")
        table.add_column(justify="right")
        for version, sessions in sorted(versions.items(), reverse=True):
            remark = "obsolete" if version in OBSOLETE_TLS else ""
            table.add_row(version, _number(sessions), percent(sessions, versions.total()), remark)
        yield _indented(table)


def _mail(counts: Counts, everything: Reach) -> Iterable[RenderableType]:
    messages, recipients = by_label(counts.messages, 1), by_label(counts.recipients, 1)
    authentications = by_label(counts.auth, 1)
    yield _title("Mail that a stream watcher could read")
    if messages:
        yield _indented(
            _breakdown(_count(messages.total(), "message"), messages, _TRANSACTION_OUTCOMES),
        )
        yield _indented(_breakdown(_count(recipients.total(), "recipient"), recipients, _REPLY_CLASSES))
    else:
        yield _indented("none")
    if authentications:
        names = {name: name for name in sorted(authentications)}
        yield _indented(
            _breakdown(f"{_count(authentications.total(), 'AUTH command')} in clear", authentications, names)
        )
    if everything.hidden:
        hidden = _count(everything.hidden, "hidden session")
        yield _indented(f"What the {hidden} carried cannot be counted from outside.")


def _anomalies(counts: Counts) -> Iterable[RenderableType]:
    found = by_label(counts.anomalies, 0)
    if not found:
        return
    yield _title("Anomalies")
    table = _table()
    table.add_column("anomaly")
    table.add_column("sessions", justify="right")
    table.add_column("what happened")
    for name, sessions in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(name, _number(sessions), MEANINGS[Anomaly(name)])
    yield _indented(table)


def _capture(
    counts: Counts, packets: PacketCounts, handshakes_incomplete: int, everything: Reach
) -> Iterable[RenderableType]:
    yield _title("How well it was captured")
    seen, smtp = packets.seen.total(), packets.seen[Verdict.SEGMENT]
    yield _indented(f"{_count(seen, 'packet')} read, {_number(smtp)} of them on the watched ports")
    unreadable = packets.seen[Verdict.MALFORMED] + packets.seen[Verdict.UNSUPPORTED]
    if unreadable:
        yield _indented(f"{_count(unreadable, 'packet')} could not be read")
    dropped = {site.value: lost for site, lost in packets.dropped.items()}
    if packets.dropped.total():
        yield _indented(_breakdown(f"{_count(packets.dropped.total(), 'packet')} lost", dropped, _DROPS))
    else:
        yield _indented("no packet known to be lost")
    incomplete = by_label(counts.sessions_incomplete, 0)
    if incomplete:
        yield _indented(_breakdown("sessions not seen whole", incomplete, _INCOMPLETE))
    elif everything.sessions:
        yield _indented("every session seen whole")
    if handshakes_incomplete:
        yield _indented(f"{_count(handshakes_incomplete, 'connection')} never got past the TCP handshake")


def percent(part: int, whole: int) -> str:
    """`all` and `none` are said by 100 % and 0 % alone: 99.97 % is 99.9 %, and 0.02 % is 0.1 %."""
    if not whole:
        return "-"
    if part in (0, whole):
        return f"{100 * part // whole} %"
    return f"{min(99.9, max(0.1, 100 * part / whole)):.1f} %"


def size(octets: int) -> str:
    """In powers of ten, with three digits."""
    if octets < 1000:
        return _count(octets, "byte")
    value = float(octets)
    unit = ""
    for unit in ("kB", "MB", "GB", "TB"):  # noqa: B007 - the last one is used below
        value /= 1000
        if value < 999.5:
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f} {unit}"


def _count(number: int, thing: str) -> str:
    return f"{_number(number)} {thing}{'' if number == 1 else 's'}"


def _number(number: int) -> str:
    return f"{number:,}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)


def _breakdown(whole: str, parts: Mapping[str, int], names: Mapping[str, str]) -> str:
    shown = ", ".join(f"{_number(parts[key])} {name}" for key, name in names.items() if parts.get(key))
    return f"{whole}: {shown}" if shown else whole


def _title(text: str) -> RenderableType:
    return Padding(Text(text, style="bold"), (1, 0, 0, 0))


def _indented(content: RenderableType) -> RenderableType:
    return Padding(content, (0, 0, 0, 2))


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="dim", show_edge=False)
