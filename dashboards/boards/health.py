"""Is the watcher itself well, and what did it miss?"""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Panel

from dashboards import colours
from dashboards.board import Board, Line, Section
from dashboards.boards.strip import strip
from dashboards.panels import (
    ALARM_ABOVE_ZERO,
    BYTES,
    COUNT,
    DURATION,
    PER_HOUR,
    SECONDS,
    SHARE,
    Query,
    figure,
    lines,
    rows,
)
from dashboards.promql import but, increase, rate, total
from dashboards.variables import SCOPE, of
from monitor.metrics.families import (
    BUILD_INFO,
    CAPTURE_UP,
    CONFINED,
    LAG,
    PACKETS,
    PACKETS_DROPPED,
    RECORDS,
    SESSION_DURATION,
    SESSIONS_INCOMPLETE,
    SESSIONS_OPEN,
    TSHARK_RESTARTS,
)
from monitor.metrics.labels import Confinement

_DAY: Final = "1d"
_HOUR: Final = "1h"

_PER_SECOND: Final = "pps"


def board() -> Board:
    return Board(
        uid="smtp-horizon-health",
        title="Watcher health",
        question="Is the watcher itself well, and what did it miss?",
        since="now-24h",
        sections=(
            strip(),
            Section(
                "Now",
                (
                    Line(
                        5,
                        (
                            (5, lag()),
                            (5, records_failed()),
                            (5, open_now()),
                            (4, incomplete()),
                            (5, restarts()),
                        ),
                    ),
                ),
            ),
            Section(
                "Packets",
                (
                    Line(7, ((12, capture_over_time()), (12, drops_over_time()))),
                    Line(7, ((12, packets_over_time()), (12, lag_over_time()))),
                ),
            ),
            Section(
                "Sessions",
                (
                    Line(7, ((12, incomplete_over_time()), (12, open_over_time()))),
                    Line(7, ((12, durations()), (12, records_over_time()))),
                ),
            ),
            Section("What it costs", (Line(7, ((8, processor()), (8, memory()), (8, scrape()))),)),
            Section("What is running", (Line(6, ((11, versions()), (7, verdicts()), (6, confined()))),)),
        ),
    )


def lag() -> Panel:
    return figure(
        "Behind the wire",
        "Age of the packet that was read last, of the slowest server. Nothing is lost by it yet. Orange "
        "from 1 s, red from 10 s: the buffers fill, and packets will be lost.",
        Query(f"max({of(LAG)})", "lag"),
        unit=SECONDS,
        steps=((None, colours.GOOD), (1, colours.NOTICE), (10, colours.BAD)),
        no_value="no watcher",
    )


def records_failed() -> Panel:
    return figure(
        "Records not written, last day",
        "Session records that could not be written, as with a full disk. Red from the first: it is lost "
        "for good.",
        Query(total(increase(of(RECORDS, result="failed"), _DAY)), "failed"),
        unit=COUNT,
        decimals=0,
        steps=ALARM_ABOVE_ZERO,
    )


def open_now() -> Panel:
    return figure(
        "Sessions open",
        "Sessions that are open now. They count in no share before they end.",
        Query(total(of(SESSIONS_OPEN)), "open"),
        unit=COUNT,
        decimals=0,
        no_value="no watcher",
    )


def incomplete() -> Panel:
    return figure(
        "Gaps, last day",
        "Sessions in whose middle bytes were not captured. Orange from the first: look at the drops.",
        Query(total(increase(of(SESSIONS_INCOMPLETE, reason="gap"), _DAY)), "gaps"),
        unit=COUNT,
        decimals=0,
        steps=((None, colours.GOOD), (0.5, colours.NOTICE)),
    )


def restarts() -> Panel:
    return figure(
        "tshark lost, last day",
        "How often tshark died or hung. Only with the pyshark probe. Planned restarts are left out; they "
        "lose nothing.",
        Query(total(increase(of(TSHARK_RESTARTS, reason=but("planned")), _DAY)), "restarts"),
        unit=COUNT,
        decimals=0,
        steps=((None, colours.GOOD), (0.5, colours.NOTICE)),
    )


def capture_over_time() -> Panel:
    return lines(
        "Capture by interface",
        "1: captured; 0: not, and nothing is counted. A gap: the watcher did not answer the scrape.",
        Query(of(CAPTURE_UP), "{{instance}} {{interface}} ({{probe}})"),
        unit=COUNT,
        decimals=0,
        top=1,
        no_value="no watcher",
    )


def drops_over_time() -> Panel:
    return lines(
        "Packets lost by where",
        "Packets, an hour. kernel, ring_buffer: we read too slowly. interface: the network card or its "
        "driver, be it mail or not. fragments: IP datagrams that were never complete. tshark: it died over "
        "the packet, twice.",
        Query(f"3600 * {total(rate(of(PACKETS_DROPPED)), 'where')}", "{{where}}"),
        unit=PER_HOUR,
        colours_by_name={
            "kernel": colours.BAD,
            "ring_buffer": "#8F1D2C",
            "interface": colours.NOTICE,
            "fragments": colours.UNKNOWN,
            "tshark": colours.PARTIAL,
        },
        stacked=True,
    )


def packets_over_time() -> Panel:
    return lines(
        "Packets read by verdict",
        "segment: TCP on a watched port, handed on. unneeded: the same, but nobody needs it, so that the "
        "kernel only counts it. All others are not mail, or cannot be read: malformed, unsupported.",
        Query(total(rate(of(PACKETS)), "verdict"), "{{verdict}}"),
        unit=_PER_SECOND,
        colours_by_name={
            "segment": colours.VISIBLE,
            "unneeded": colours.HIDDEN,
            "other_port": colours.NOTHING,
            "not_tcp": colours.UNKNOWN,
            "malformed": colours.BAD,
            "unsupported": colours.NOTICE,
        },
        stacked=True,
    )


def lag_over_time() -> Panel:
    return lines(
        "Behind the wire",
        "Age of the packet that was read last; 0 while none come. What grows here will be lost packets next.",
        Query(of(LAG), "{{instance}}"),
        unit=SECONDS,
        no_value="no watcher",
    )


def incomplete_over_time() -> Panel:
    return lines(
        "Sessions not seen whole, by reason",
        "Each over the hour before; one session counts under each reason that it has. gap, truncated: "
        "bytes are missing. midstream: it had begun before us. idle: it fell silent. evicted: too many "
        "were open. capture_ended: we stopped.",
        Query(total(increase(of(SESSIONS_INCOMPLETE), _HOUR), "reason"), "{{reason}}"),
        unit=COUNT,
        decimals=0,
        colours_by_name={"gap": colours.BAD, "evicted": colours.NOTICE, "idle": colours.UNKNOWN},
    )


def open_over_time() -> Panel:
    return lines(
        "Sessions open",
        "They count in no share before they end. What grows without end is a server that does not close, "
        "or an attack.",
        Query(of(SESSIONS_OPEN), "{{instance}}"),
        unit=COUNT,
        decimals=0,
        no_value="no watcher",
    )


def durations() -> Panel:
    buckets = total(increase(of(SESSION_DURATION, suffix="_bucket"), _HOUR), "le")
    return lines(
        "How long sessions last",
        "From the first packet to the last, of the sessions that ended in the hour before. Between the "
        "limits of the buckets it is an estimate.",
        Query(f"histogram_quantile(0.5, {buckets})", "median", colours.VISIBLE),
        Query(f"histogram_quantile(0.95, {buckets})", "p95", colours.PARTIAL),
        unit=SECONDS,
        no_value="no sessions",
    )


def records_over_time() -> Panel:
    return lines(
        "Records written and failed",
        "Session records, an hour. Both stay at zero where no records were asked for (--records).",
        Query(f"3600 * {total(rate(of(RECORDS)), 'result')}", "{{result}}"),
        unit=PER_HOUR,
        colours_by_name={"written": colours.VISIBLE, "failed": colours.BAD},
    )


def processor() -> Panel:
    return lines(
        "Processor",
        "Share of one processor core that the watcher takes, without its probe's children. At 100 % it "
        "falls behind.",
        Query(rate(f"process_cpu_seconds_total{{{SCOPE}}}"), "{{instance}}"),
        unit=SHARE,
        decimals=1,
        no_value="no watcher",
    )


def memory() -> Panel:
    return lines(
        "Memory",
        "Resident memory of the watcher. Every table in it has a bound, so it stops growing after some days.",
        Query(f"process_resident_memory_bytes{{{SCOPE}}}", "{{instance}}"),
        unit=BYTES,
        no_value="no watcher",
    )


def scrape() -> Panel:
    return lines(
        "Duration of a scrape",
        "How long Prometheus waits for /metrics. Its own limit is 10 s by default; then the scrape is lost.",
        Query(f"scrape_duration_seconds{{{SCOPE}}}", "{{instance}}"),
        unit=SECONDS,
        no_value="no watcher",
    )


def versions() -> Panel:
    running = f"max by (instance) (time() - process_start_time_seconds{{{SCOPE}}})"
    # Always 1, so that the product is the running time, with the labels of the version.
    build = total(of(BUILD_INFO), "instance", "version", "python")
    return rows(
        "Versions",
        "What each server runs, and for how long. A start that nobody asked for was a crash; sessions that "
        "were open then are counted as midstream.",
        Query(f"{build} * on(instance) group_left() {running}", "Running for"),
        keys=("instance", "version", "python"),
        unit=DURATION,
    )


def verdicts() -> Panel:
    return rows(
        "Packets that could not be read, last day",
        "malformed: headers that are cut short or contradict themselves. unsupported: a link or network "
        "layer that we do not know. fragment: part of an IP datagram.",
        Query(
            total(increase(of(PACKETS, verdict=("malformed", "unsupported", "fragment")), _DAY), "verdict"),
            "Packets",
        ),
        keys=("verdict",),
        unit=COUNT,
        decimals=0,
    )


def confined() -> Panel:
    return figure(
        "Privileges given up",
        "What the process that reads packets gave up before it read one; yes where all of the chosen "
        "servers did. user: it is not root. capabilities: it has none. system calls: a filter is on them. "
        "Orange: a hostile packet that got the better of it would get that much more.",
        *(Query(f"min({of(CONFINED, by=what)})", what.value.replace("_", " ")) for what in Confinement),
        unit=COUNT,
        decimals=0,
        steps=((None, colours.NOTICE), (1, colours.GOOD)),
        words={"0": ("no", colours.NOTICE), "1": ("yes", colours.GOOD)},
        no_value="no watcher",
    )
