"""Does anybody send passwords in clear, meddle with STARTTLS, or try the doors?"""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Panel

from dashboards import colours
from dashboards.board import Board, Line, Section
from dashboards.boards.strip import strip
from dashboards.panels import (
    ALARM_ABOVE_ZERO,
    COUNT,
    NOTICE_ABOVE_ZERO,
    SHARE,
    Query,
    Step,
    bars,
    figure,
    lines,
    rows,
)
from dashboards.promql import Match, but, increase, ratio, total
from dashboards.variables import of
from monitor.metrics.families import (
    ANOMALIES,
    AUTH,
    HANDSHAKES_INCOMPLETE,
    RECIPIENTS,
    SESSIONS,
    STRAYS,
)

_DAY: Final = "1d"
_HOUR: Final = "1h"

_MEDDLING: Final = ("starttls_masked", "starttls_injection", "response_injection", "cleartext_after_tls")
"""Somebody on the way, or who tries what somebody on the way could do."""

_OF_CLIENTS: Final = but(*_MEDDLING, "cleartext_auth")

_MEDDLING_COLOURS: Final = {
    "starttls_masked": colours.BAD,
    "starttls_injection": colours.NOTICE,
    "response_injection": "#FADE2A",
    "cleartext_after_tls": "#8F1D2C",
}


def board() -> Board:
    return Board(
        uid="smtp-horizon-security",
        title="Security",
        question="Does anybody send passwords in clear, meddle with STARTTLS, or try the doors?",
        since="now-7d",
        sections=(
            strip(),
            Section(
                "Sessions of the last day",
                (
                    Line(
                        5,
                        (
                            (4, auth_in_clear()),
                            (4, starttls_masked()),
                            (4, starttls_injection()),
                            (4, response_injection()),
                            (4, cleartext_after_tls()),
                            (4, early_talkers()),
                        ),
                    ),
                ),
            ),
            Section("Passwords in clear", (Line(8, ((15, auth_over_time()), (9, auth_by_port()))),)),
            Section("On the way", (Line(8, ((12, meddling_over_time()), (12, anomalies_over_time()))),)),
            Section(
                "At the door", (Line(8, ((7, scans_over_time()), (10, without_mail()), (7, recipients()))),)
            ),
        ),
    )


def _anomaly(title: str, description: str, anomaly: str, steps: tuple[Step, ...] = ALARM_ABOVE_ZERO) -> Panel:
    return figure(
        title,
        description,
        Query(total(increase(of(ANOMALIES, anomaly=anomaly), _DAY)), "sessions"),
        unit=COUNT,
        decimals=0,
        steps=steps,
    )


def auth_in_clear() -> Panel:
    return _anomaly(
        "AUTH in clear",
        "Sessions in which AUTH was sent in clear, accepted or not. Red from the first: a password that "
        "somebody on the way could read. Attempts that the server refused, as on port 25, are in it.",
        "cleartext_auth",
    )


def starttls_masked() -> Panel:
    return _anomaly(
        "STARTTLS masked",
        "A keyword in the EHLO reply, or the client's STARTTLS, was overwritten in flight. Red from the "
        "first: a device on the way keeps mail in clear.",
        "starttls_masked",
    )


def starttls_injection() -> Panel:
    return _anomaly(
        "STARTTLS injection",
        "The client sent something after STARTTLS before it heard the 220 (CVE-2011-0411). Orange: seen, "
        "not proven to have worked. A server that is up to date throws it away.",
        "starttls_injection",
        NOTICE_ABOVE_ZERO,
    )


def response_injection() -> Panel:
    return _anomaly(
        "Response injection",
        "The server's side sent something after the 220, before its ServerHello (CVE-2021-38371). Orange: "
        "seen, not proven to have worked.",
        "response_injection",
        NOTICE_ABOVE_ZERO,
    )


def cleartext_after_tls() -> Panel:
    return _anomaly(
        "Clear text after TLS",
        "Clear text on a connection whose encryption was established (CVE-2026-45185). Red from the first.",
        "cleartext_after_tls",
    )


def early_talkers() -> Panel:
    return _anomaly(
        "Early talkers",
        "A command was sent before the banner was heard: mostly spam programs. Every public server has "
        "some, so there is no colour for many.",
        "early_talker",
        ((None, colours.VISIBLE),),
    )


def auth_over_time() -> Panel:
    return lines(
        "AUTH in clear by mechanism",
        "AUTH commands seen in clear, each over the hour before. PLAIN and LOGIN are the password itself; "
        "CRAM-MD5, DIGEST-MD5 and SCRAM are not. Mechanisms that were never seen in the chosen time are "
        "left out.",
        Query(f"{total(increase(of(AUTH), _HOUR), 'mechanism')} > 0", "{{mechanism}}"),
        unit=COUNT,
        decimals=0,
        events=True,
        no_value="no AUTH in clear",
    )


def auth_by_port() -> Panel:
    return bars(
        "AUTH in clear by port and mechanism, last day",
        "On 587 a client of ours is set up wrong; on 25 it is more likely somebody who tries passwords.",
        Query(
            f"sort_desc({total(increase(of(AUTH), _DAY), 'port', 'mechanism')} > 0)", "{{port}} {{mechanism}}"
        ),
        unit=COUNT,
        decimals=0,
        no_value="no AUTH in clear",
    )


def meddling_over_time() -> Panel:
    return lines(
        "STARTTLS meddled with",
        "Sessions with one of these anomalies, each over the hour before. One session may have several.",
        Query(total(increase(of(ANOMALIES, anomaly=_MEDDLING), _HOUR), "anomaly"), "{{anomaly}}"),
        unit=COUNT,
        decimals=0,
        colours_by_name=_MEDDLING_COLOURS,
        events=True,
    )


def anomalies_over_time() -> Panel:
    return lines(
        "Clients out of line",
        "Sessions with one of the other anomalies, each over the hour before. bare_lf is how SMTP "
        "smuggling begins (CVE-2023-51764). list_overflow: more than a record holds, and the record does "
        "not have all.",
        Query(total(increase(of(ANOMALIES, anomaly=_OF_CLIENTS), _HOUR), "anomaly"), "{{anomaly}}"),
        unit=COUNT,
        decimals=0,
        events=True,
        legend_right=True,
    )


def scans_over_time() -> Panel:
    return lines(
        "Scans",
        "Each over the hour before. Half-open: the TCP handshake never completed. Strays: segments without "
        "data that belong to no connection, of port scans and of late packets. Without mail: sessions that "
        "sent no MAIL.",
        Query(total(increase(of(SESSIONS, envelope="none"), _HOUR)), "without mail", colours.NOTHING),
        Query(total(increase(of(HANDSHAKES_INCOMPLETE), _HOUR)), "half-open", colours.NOTICE),
        Query(total(increase(of(STRAYS), _HOUR)), "strays", colours.UNKNOWN),
        unit=COUNT,
        decimals=0,
    )


def without_mail() -> Panel:
    def sessions(**envelope: Match) -> str:
        return total(increase(of(SESSIONS, suffix="", **envelope), _DAY), "port")

    return rows(
        "Sessions without mail by port, last day",
        "Sessions that were never encrypted and sent no MAIL: scans, probes of monitoring, failed logins. "
        "Unknown is the error bar: too little was captured to say.",
        Query(sessions(envelope="none"), "Without mail"),
        Query(ratio(sessions(envelope="none"), sessions()), "Share", unit=SHARE),
        Query(sessions(envelope="unknown"), "Unknown"),
        keys=("port",),
        unit=COUNT,
        decimals=0,
    )


def recipients() -> Panel:
    return lines(
        "Recipients in clear by reply",
        "RCPT commands seen in clear, each over the hour before, by the reply. Many 5xx: somebody tries "
        "addresses. none: no reply was seen.",
        Query(total(increase(of(RECIPIENTS), _HOUR), "reply_class"), "{{reply_class}}"),
        unit=COUNT,
        decimals=0,
        colours_by_name={
            "2xx": colours.VISIBLE,
            "4xx": colours.NOTICE,
            "5xx": colours.BAD,
            "none": colours.UNKNOWN,
            "other": colours.NOTHING,
        },
    )
