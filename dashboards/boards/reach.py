"""What can each kind of stream watcher still decide, and what would another policy change?"""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Panel

from dashboards import colours
from dashboards.board import Board, Line, Section
from dashboards.boards.strip import strip
from dashboards.panels import COUNT, SECONDS, SHARE, Query, bars, lines, rows
from dashboards.promql import Match, but, increase, ratio, total
from dashboards.variables import of
from monitor.metrics.families import (
    GREYLISTER_MESSAGES,
    GREYLISTER_RECIPIENTS,
    GREYLISTER_SESSIONS,
    PEER_DARK_SESSIONS,
    PEER_RETURNS,
    PEER_RETURNS_PENDING,
    PEER_RETURNS_UNKNOWN,
    PEERS_FORGOTTEN,
    SIMULATION_DECISIONS,
    SIMULATION_KNOWN,
    SIMULATION_KNOWN_FORGOTTEN,
    SIMULATION_PENDING,
    SIMULATION_RETRY_DELAY,
    SIMULATION_TRIPLETS,
)

_HOUR: Final = "1h"
_DAY: Final = "1d"
_WEEK: Final = "1w"

_REACHES: Final = {
    "decided": colours.VISIBLE,
    "bypassed": colours.HIDDEN,
    "blind": colours.HIDDEN_FROM_START,
    "stalled": colours.NOTICE,
    "unknown": colours.UNKNOWN,
}

_OUT_OF_REACH: Final = ("bypassed", "blind", "stalled")

_SHARE_OF: Final = (
    "Of the sessions with something to decide on; outbound ones are left out, they pass no greylister of "
    "ours. "
)


def board() -> Board:
    return Board(
        uid="smtp-horizon-reach",
        title="Greylister reach",
        question="What can a stream watcher still decide, and what would another policy change?",
        since="now-7d",
        sections=(
            strip(),
            Section(
                "What each can decide, last day",
                (Line(8, ((16, reach_table()), (8, why_greylite()))),),
            ),
            Section(
                "Over time",
                (
                    Line(
                        7, ((8, over_time("greylite")), (8, over_time("recordio")), (8, over_time("spamd")))
                    ),
                    Line(
                        7,
                        (
                            (8, over_time("jgreylist")),
                            (8, over_time("policy_service")),
                            (8, unread_in_clear()),
                        ),
                    ),
                ),
            ),
            Section("What would change it", (Line(7, ((12, advice()), (12, cost_of_no_starttls()))),)),
            Section(
                "If a greylister stood here (--simulate)",
                (
                    Line(8, ((7, decisions("greylite")), (7, decisions("postgrey")), (10, retry_delay()))),
                    Line(8, ((7, fates("greylite")), (7, fates("postgrey")), (10, tables()))),
                ),
            ),
            Section("Who comes back", (Line(7, ((17, returns()), (7, returns_in_doubt()))),)),
        ),
    )


def reach_table() -> Panel:
    whole = total(increase(of(GREYLISTER_SESSIONS, reach=but("no_envelope")), _DAY), "greylister")

    def share(reach: str) -> str:
        return ratio(total(increase(of(GREYLISTER_SESSIONS, reach=reach), _DAY), "greylister"), whole)

    return rows(
        "Share of sessions by what each program could do",
        _SHARE_OF + "Decided: nothing kept it from reading the envelope. Bypassed: it stepped aside "
        "before. Blind: it had only ciphertext. Stalled: it met what it cannot read. Unknown: "
        "the error bar of the others. A dash: this program cannot end so.",
        *(Query(share(reach), reach.capitalize(), colour) for reach, colour in _REACHES.items()),
        keys=("greylister",),
        unit=SHARE,
        decimals=1,
    )


def why_greylite() -> Panel:
    def lost(by: Match) -> str:
        return increase(of(GREYLISTER_SESSIONS, greylister="greylite", reach=_OUT_OF_REACH, by=by), _DAY)

    return bars(
        "What takes greylite its sight, last day",
        "Sessions in which greylite could not decide, and by what. stalled: it met what it cannot parse.",
        Query(f"sort_desc({total(lost(but('none')), 'reach', 'by')})", "{{reach}} by {{by}}"),
        Query(total(lost("none"), "reach"), "{{reach}}"),
        unit=COUNT,
        decimals=0,
        colours_by_name={
            "bypassed by starttls": colours.HIDDEN,
            "bypassed by auth": colours.HIDDEN,
            "bypassed by data": colours.HIDDEN,
            "blind by implicit_tls": colours.HIDDEN_FROM_START,
            "stalled": colours.NOTICE,
        },
    )


def over_time(greylister: str) -> Panel:
    sessions = of(GREYLISTER_SESSIONS, greylister=greylister, reach=but("no_envelope"))
    by_reach = total(increase(sessions, _DAY), "reach")
    return lines(
        greylister,
        _SHARE_OF + "Each point is the day before it. unknown is the error bar.",
        Query(f"{by_reach} / on() group_left() ({total(increase(sessions, _DAY))} > 0)", "{{reach}}"),
        unit=SHARE,
        decimals=0,
        colours_by_name=_REACHES,
        stacked=True,
        top=1,
        no_value="no sessions",
    )


def unread_in_clear() -> Panel:
    return rows(
        "Seen in clear, and yet not decided on, last day",
        "Transactions and recipients that stood in clear on the wire, in sessions that were out of the "
        "program's reach. What was inside TLS cannot be counted from outside, and is in neither.",
        Query(total(increase(of(GREYLISTER_MESSAGES, reach=_OUT_OF_REACH), _DAY), "greylister"), "Messages"),
        Query(
            total(increase(of(GREYLISTER_RECIPIENTS, reach=_OUT_OF_REACH), _DAY), "greylister"), "Recipients"
        ),
        keys=("greylister",),
        unit=COUNT,
        decimals=0,
    )


def advice() -> Panel:
    """The sums of policy:smtp_sessions_regained:increase1d, but for the chosen servers alone."""
    lost = of(GREYLISTER_SESSIONS, greylister="greylite", reach="bypassed", by="starttls")
    all_lost = of(GREYLISTER_SESSIONS, greylister="greylite", reach=_OUT_OF_REACH)
    return bars(
        "Sessions of the last day that would come back into sight",
        "Of those that greylite missed. Without STARTTLS: the server no longer offers it, and all mail is "
        "in clear. By address alone: a greylister such as jgreylist or postscreen, before the first byte. "
        "In the mail server: a policy service such as postgrey, after decryption.",
        Query(total(increase(lost, _DAY)), "without STARTTLS"),
        Query(total(increase(all_lost, _DAY)), "by address alone"),
        Query(total(increase(all_lost, _DAY)), "in the mail server"),
        unit=COUNT,
        decimals=0,
    )


def cost_of_no_starttls() -> Panel:
    return bars(
        "Without STARTTLS: the same peers' sessions",
        "Sessions that STARTTLS hid, of the peers that are remembered now, by what these did when they got "
        "no TLS. falls_back and never_asks would come in clear. requires would stay away. untested: nobody "
        "knows.",
        Query(total(of(PEER_DARK_SESSIONS), "tls_need"), "{{tls_need}}"),
        unit=COUNT,
        decimals=0,
        colours_by_name={
            "falls_back": colours.VISIBLE,
            "never_asks": colours.VISIBLE,
            "requires": colours.BAD,
            "untested": colours.UNKNOWN,
        },
    )


def decisions(greylister: str) -> Panel:
    counted = "session" if greylister == "greylite" else "recipient"
    return lines(
        f"{greylister} would have decided",
        f"One for each {counted}, over the hour before. Zero without --simulate {greylister}. unread_tls, "
        "out_of_sight: TLS hid it, from the program or from us. unknown: not captured well enough.",
        Query(
            total(increase(of(SIMULATION_DECISIONS, greylister=greylister), _HOUR), "decision"),
            "{{decision}}",
        ),
        unit=COUNT,
        colours_by_name={
            "deferred": colours.NOTICE,
            "passed_on_retry": colours.VISIBLE,
            "passed_known": colours.KNOWN,
            "unread_tls": colours.HIDDEN,
            "out_of_sight": colours.HIDDEN,
            "unread_other": colours.PARTIAL,
            "stalled": colours.BAD,
            "unknown": colours.UNKNOWN,
        },
        stacked=True,
    )


def fates(greylister: str) -> Panel:
    ended = increase(of(SIMULATION_TRIPLETS, greylister=greylister), _WEEK)
    return bars(
        f"What {greylister} put off became, last week",
        "Triplets, by how their wait ended. never_retried: the protection that is left. accepted_meanwhile "
        "and refused_meanwhile: the real server had answered, so nobody can know whether they would have "
        "come again.",
        Query(total(ended, "fate"), "{{fate}}"),
        unit=COUNT,
        decimals=0,
        colours_by_name={"never_retried": colours.GOOD, "unknown": colours.UNKNOWN, "forgotten": colours.BAD},
        no_value="nothing put off",
    )


def retry_delay() -> Panel:
    buckets = total(increase(of(SIMULATION_RETRY_DELAY, suffix="_bucket"), _WEEK), "le", "greylister")
    return bars(
        "Delay until the retry that passed, last week",
        "What greylisting costs in time: from the first attempt to the one that passed, where the real "
        "server put off the first. Half of them waited no longer than the median, nine of ten no longer "
        "than p90. Between the limits of the buckets it is an estimate.",
        Query(f"histogram_quantile(0.5, {buckets})", "{{greylister}} median"),
        Query(f"histogram_quantile(0.9, {buckets})", "{{greylister}} p90"),
        unit=SECONDS,
        decimals=0,
        no_value="no retries",
    )


def tables() -> Panel:
    return rows(
        "Simulated tables, now",
        "Waiting: triplets put off that may still come again. Known: what is let through, to greylite "
        "addresses, to postgrey triplets. Forgotten in the last week because the table was full: above "
        "zero, the decisions are too strict.",
        Query(total(of(SIMULATION_PENDING), "greylister"), "Waiting"),
        Query(total(of(SIMULATION_KNOWN), "greylister"), "Known"),
        Query(total(increase(of(SIMULATION_KNOWN_FORGOTTEN), _WEEK), "greylister"), "Forgotten"),
        keys=("greylister",),
        unit=COUNT,
        decimals=0,
    )


def returns() -> Panel:
    def came(how: str) -> str:
        return total(increase(of(PEER_RETURNS, **{"return": how}), _WEEK), "after")

    return rows(
        "What was put off, and how it came again, last week",
        "put_off: mail in clear that was answered 4xx. starttls_refused, starttls_failed: the peer's next "
        "attempt. In the dark: the peer came, and encryption hid what it carried. Never: not within two "
        "days. In doubt: nobody can tell, the error bar. Waiting: may still come.",
        Query(came("clear"), "In clear"),
        Query(came("other_address"), "Other address"),
        Query(came("dark"), "In the dark"),
        Query(came("never"), "Never"),
        Query(total(increase(of(PEER_RETURNS_UNKNOWN), _WEEK), "after"), "In doubt"),
        Query(total(of(PEER_RETURNS_PENDING), "after"), "Waiting"),
        keys=("after",),
        unit=COUNT,
        decimals=0,
    )


def returns_in_doubt() -> Panel:
    return bars(
        "What is not known of them, last week",
        "in_doubt: sessions that may have brought it were not captured whole. forgotten: no more room to "
        "remember. Peers forgotten: their need for TLS is lost with them.",
        Query(total(increase(of(PEER_RETURNS_UNKNOWN), _WEEK), "reason"), "{{reason}}", unit=COUNT),
        Query(total(increase(of(PEERS_FORGOTTEN), _WEEK)), "peers forgotten"),
        unit=COUNT,
        decimals=0,
        colours_by_name={
            "in_doubt": colours.UNKNOWN,
            "forgotten": colours.UNKNOWN,
            "peers forgotten": colours.UNKNOWN,
        },
    )
