"""Which TLS do our peers speak, and where does it fail?"""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Panel

from dashboards import colours
from dashboards.board import Board, Line, Section
from dashboards.boards.strip import strip
from dashboards.panels import ALARM_ABOVE_ZERO, COUNT, SHARE, Query, bars, figure, lines, rows
from dashboards.promql import Match, increase, ratio, total
from dashboards.variables import of, of_directions
from monitor.metrics.families import STARTTLS, TLS_HANDSHAKES

_DAY: Final = "1d"

_OBSOLETE: Final = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1")
"""RFC 8996 and RFC 7568 say not to use them, and RFC 6176 the first."""

_BEGUN: Final = ("established", "failed", "abandoned")
"""STARTTLS was answered 220: a handshake should have followed."""

_VERSIONS: Final = {
    "TLSv1.3": "#37872D",
    "TLSv1.2": "#96D98D",
    "TLSv1.1": colours.NOTICE,
    "TLSv1": "#FA6400",
    "SSLv3": colours.BAD,
    "SSLv2": "#8F1D2C",
    "unknown": colours.UNKNOWN,
    "other": colours.NOTHING,
}

_TROUBLES: Final = {
    "failed": colours.BAD,
    "abandoned": colours.NOTICE,
    "refused": colours.REFERENCE,
    "masked": "#8F1D2C",
}


def board() -> Board:
    return Board(
        uid="smtp-horizon-tls",
        title="TLS",
        question="Which TLS do our peers speak, and where does it fail?",
        since="now-7d",
        by_direction=True,
        sections=(
            strip(),
            Section(
                "Last day",
                (
                    Line(
                        5,
                        (
                            (6, established()),
                            (5, failed()),
                            (4, refused()),
                            (4, masked()),
                            (5, obsolete()),
                        ),
                    ),
                ),
            ),
            Section("Versions", (Line(9, ((14, versions_over_time()), (10, versions()))),)),
            Section("Where it fails", (Line(9, ((12, failures_over_time()), (12, troubles_over_time()))),)),
            Section("By port, last day", (Line(7, ((24, by_port()),)),)),
        ),
    )


def _came(outcome: Match, *by: str) -> str:
    return total(increase(of_directions(STARTTLS, outcome=outcome), _DAY), *by)


def established() -> Panel:
    return figure(
        "STARTTLS established",
        "Of the sessions in which the client asked for STARTTLS. Orange below 95 %, red below 80 %: "
        "scanners fail on purpose, so a few percent are always missing.",
        Query(ratio(_came("established"), _came(("refused", *_BEGUN))), "established"),
        unit=SHARE,
        decimals=1,
        steps=((None, colours.BAD), (0.8, colours.NOTICE), (0.95, colours.GOOD)),
        no_value="nobody asked",
    )


def failed() -> Panel:
    return figure(
        "Failed or abandoned",
        "Of the sessions in which STARTTLS was answered 220, those in which encryption was never "
        "established. Orange from 5 %, red from 20 %: then it is our certificate, our versions, or "
        "somebody on the way.",
        Query(ratio(_came(_BEGUN[1:]), _came(_BEGUN)), "failed"),
        unit=SHARE,
        decimals=1,
        steps=((None, colours.GOOD), (0.05, colours.NOTICE), (0.2, colours.BAD)),
        no_value="no handshakes",
    )


def refused() -> Panel:
    return figure(
        "STARTTLS refused",
        "STARTTLS that was answered other than 220, as with 454. Orange from the first: who offers it "
        "should be able to do it; look at the mail server's log.",
        Query(_came("refused"), "refused"),
        unit=COUNT,
        decimals=0,
        steps=((None, colours.GOOD), (0.5, colours.NOTICE)),
    )


def masked() -> Panel:
    return figure(
        "STARTTLS masked",
        "Sessions in which somebody on the way overwrote STARTTLS, so that mail goes in clear. Red from "
        "the first.",
        Query(_came("masked"), "masked"),
        unit=COUNT,
        decimals=0,
        steps=ALARM_ABOVE_ZERO,
    )


def obsolete() -> Panel:
    handshakes = total(increase(of(TLS_HANDSHAKES, version=_OBSOLETE), _DAY))
    return figure(
        "Obsolete versions",
        "SSL and TLS before 1.2 (RFC 8996), of all handshakes that were established. Old peers, or a "
        "downgrade. Orange from 1 %, red from 10 %. Handshakes of unknown version count as not obsolete. "
        "Not by direction.",
        Query(ratio(handshakes, total(increase(of(TLS_HANDSHAKES), _DAY))), "obsolete"),
        unit=SHARE,
        decimals=2,
        steps=((None, colours.GOOD), (0.01, colours.NOTICE), (0.1, colours.BAD)),
        no_value="no handshakes",
    )


def versions_over_time() -> Panel:
    by_version = total(increase(of(TLS_HANDSHAKES), _DAY), "version")
    return lines(
        "Versions, each over the day before",
        "Share of the sessions whose encryption was established, by STARTTLS or from the first byte. "
        "unknown: the hello messages were not captured. Not by direction.",
        Query(
            f"{by_version} / on() group_left() ({total(increase(of(TLS_HANDSHAKES), _DAY))} > 0)",
            "{{version}}",
        ),
        unit=SHARE,
        decimals=0,
        colours_by_name=_VERSIONS,
        stacked=True,
        top=1,
        no_value="no handshakes",
    )


def versions() -> Panel:
    return bars(
        "Versions, last day",
        "Sessions whose encryption was established. Not by direction.",
        Query(total(increase(of(TLS_HANDSHAKES), _DAY), "version"), "{{version}}"),
        unit=COUNT,
        decimals=0,
        colours_by_name=_VERSIONS,
        no_value="no handshakes",
    )


def failures_over_time() -> Panel:
    def share(window: str) -> str:
        def begun(outcome: Match) -> str:
            return total(increase(of_directions(STARTTLS, outcome=outcome), window), "port")

        return ratio(begun(_BEGUN[1:]), begun(_BEGUN))

    return lines(
        "Share of handshakes that failed or were abandoned, by port",
        "Of the sessions in which STARTTLS was answered 220, each over the 6 hours before.",
        Query(share("6h"), "port {{port}}"),
        unit=SHARE,
        decimals=1,
        no_value="no handshakes",
    )


def troubles_over_time() -> Panel:
    return lines(
        "Failed, abandoned, refused, masked",
        "Sessions, each over the hour before. failed: 220, and the handshake did not complete. abandoned: "
        "220, and no TLS from the client. refused: answered other than 220. masked: overwritten on the "
        "way.",
        Query(
            total(increase(of_directions(STARTTLS, outcome=tuple(_TROUBLES)), "1h"), "outcome"),
            "{{outcome}}",
        ),
        unit=COUNT,
        colours_by_name=_TROUBLES,
        events=True,
    )


def by_port() -> Panel:
    handshakes = total(increase(of(TLS_HANDSHAKES), _DAY), "port")
    old = total(increase(of(TLS_HANDSHAKES, version=_OBSOLETE), _DAY), "port")
    return rows(
        "Handshakes by port",
        "Encrypted: sessions whose encryption was established, TLS from the first byte included. The other "
        "counts are of STARTTLS alone, so that they are zero on 465. Encrypted and obsolete are of all "
        "directions.",
        Query(handshakes, "Encrypted"),
        Query(ratio(old, handshakes), "Obsolete", unit=SHARE),
        Query(_came("failed", "port"), "Failed"),
        Query(_came("abandoned", "port"), "Abandoned"),
        Query(_came("refused", "port"), "Refused"),
        Query(_came("masked", "port"), "Masked"),
        Query(_came("unknown", "port"), "Unknown"),
        keys=("port",),
        unit=COUNT,
        decimals=0,
        sort_by="Encrypted",
    )
