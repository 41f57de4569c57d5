"""How does dark mail differ from mail in sight, and can the tap and the monitor be believed?

Needs `watch --tls-tap`. Every query asks only the servers where a tap runs now, those for what is in clear,
too: like is set beside like, and where none runs every panel says so.
"""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Panel

from dashboards import colours
from dashboards.board import Board, Line, Section
from dashboards.boards.strip import strip
from dashboards.panels import (
    ALARM_ABOVE_ZERO,
    COUNT,
    NOTICE_ABOVE_ZERO,
    POINTS,
    SHARE,
    Query,
    bars,
    figure,
    lines,
    note,
    rows,
)
from dashboards.promql import Match, but, increase, ratio, total
from dashboards.variables import of
from monitor.metrics.families import (
    GREYLISTER_MESSAGES,
    MESSAGES,
    NULL_SENDER_MESSAGES,
    PEER_RETURNS,
    PEER_RETURNS_PENDING,
    PEER_RETURNS_UNKNOWN,
    RECIPIENTS,
    TAPPED_AUTH,
    TAPPED_MESSAGES,
    TAPPED_RECIPIENTS,
    TAPPED_RETURNS,
    TAPPED_RETURNS_PENDING,
    TAPPED_RETURNS_UNKNOWN,
    TAPPED_SESSIONS,
    TLS_TAP_ENABLED,
    TLS_TAP_EVENTS_LOST,
    TLS_TAP_LIBRARIES,
    VERDICT_MISMATCHES,
    Family,
)

_WEEK: Final = "1w"
_DAY: Final = "1d"
_HOUR: Final = "1h"

_WHERE_TAPPED: Final = f"and on (job, instance) ({of(TLS_TAP_ENABLED)} == 1)"

_NO_TAP: Final = "no tap runs"
_NO_MAIL: Final = "no tap runs, or no mail"
_NOTHING_PUT_OFF: Final = "no tap runs, or nothing put off"

_DARK_AND_IN_SIGHT: Final = (
    "Dark: inside TLS, as the tap saw it. In sight: in clear. Last day, and only where a tap runs. "
)


def board() -> Board:
    return Board(
        uid="smtp-horizon-inside",
        title="Inside TLS",
        question="How does dark mail differ from mail in sight, and can the tap and the monitor be believed?",
        since="now-7d",
        sections=(
            strip(),
            Section(
                "Can it be believed?",
                (
                    Line(
                        5,
                        (
                            (5, libraries()),
                            (5, mismatches()),
                            (5, seen_whole()),
                            (4, events_lost()),
                            (5, what_is_compared()),
                        ),
                    ),
                    Line(8, ((12, not_seen_whole()), (12, seen_by_port()))),
                ),
            ),
            Section(
                "Dark mail and mail in sight",
                (
                    Line(
                        5,
                        (
                            (6, messages()),
                            (6, null_senders()),
                            (6, recipients_a_message()),
                            (6, sent_by_us()),
                        ),
                    ),
                    Line(7, ((12, outcomes()), (12, replies()))),
                    Line(
                        8,
                        ((8, put_off_over_time()), (8, rejected_over_time()), (8, null_senders_over_time())),
                    ),
                    Line(5, ((6, came_again()), (18, returns()))),
                ),
            ),
            Section("Passwords inside TLS", (Line(7, ((15, auth_over_time()), (9, auth_by_port()))),)),
            Section(
                "The tap itself", (Line(7, ((12, libraries_over_time()), (12, events_lost_over_time()))),)
            ),
        ),
    )


def _counted(family: Family, window: str, *by: str, **labels: Match) -> str:
    """Of the servers where a tap runs."""
    counted = increase(of(family, suffix="", **labels), window)
    return total(f"{counted} {_WHERE_TAPPED}", *by)


def _shares(family: Family, label: str, **labels: Match) -> str:
    """What each value of the label has of the whole family; `labels` narrow the values, not the whole."""
    part = _counted(family, _DAY, label, **labels)
    return f"{part} / on() group_left() ({_counted(family, _DAY)} > 0)"


def _null_senders(visibility: str, whole: Family) -> str:
    return ratio(_counted(NULL_SENDER_MESSAGES, _DAY, visibility=visibility), _counted(whole, _DAY))


def _to_us(window: str, *by: str, **labels: Match) -> str:
    """Encrypted sessions to the server itself: those to others are not counted."""
    return _counted(TAPPED_SESSIONS, window, *by, **labels)


# -- Can it be believed?


def libraries() -> Panel:
    return figure(
        "TLS libraries attached",
        "Files of TLS libraries that the tap is attached to now, of the server with the fewest. Red at none: "
        "it sees nothing. Without --tls-tap there is no number.",
        Query(f"min({of(TLS_TAP_LIBRARIES)} {_WHERE_TAPPED})", "libraries"),
        unit=COUNT,
        decimals=0,
        steps=((None, colours.BAD), (1, colours.GOOD)),
        words={"0": ("NONE", colours.BAD)},
        no_value=_NO_TAP,
    )


def mismatches() -> Panel:
    return figure(
        "Verdicts that were wrong",
        "Sessions in the chosen time whose packets were read one way, while inside TLS it was the other. "
        "Must be 0. Red from the first: a fault of ours, and the shares on all boards rest on such verdicts.",
        Query(_counted(VERDICT_MISMATCHES, "$__range"), "mismatches"),
        unit=COUNT,
        decimals=0,
        steps=ALARM_ABOVE_ZERO,
        no_value=_NO_TAP,
    )


def seen_whole() -> Panel:
    return figure(
        "Encrypted sessions seen whole",
        "Of the encrypted sessions of the last day, but for those to others, those that the tap saw from "
        "the handshake's end to their own. Orange below 95 %, red below 80 %: what stands below "
        "is then said of a part of the dark mail only.",
        Query(ratio(_to_us(_DAY, result="whole"), _to_us(_DAY)), "whole"),
        unit=SHARE,
        decimals=1,
        steps=((None, colours.BAD), (0.8, colours.NOTICE), (0.95, colours.GOOD)),
        no_value=_NO_MAIL,
    )


def events_lost() -> Panel:
    return figure(
        "Events lost, last day",
        "Events of the tap that were lost before they could be read. Orange from the first: their sessions "
        "are partial, which is no guess but a hole.",
        Query(_counted(TLS_TAP_EVENTS_LOST, _DAY), "lost"),
        unit=COUNT,
        decimals=0,
        steps=NOTICE_ABOVE_ZERO,
        no_value=_NO_TAP,
    )


def what_is_compared() -> Panel:
    return note(
        "What is compared",
        "What the words on this board mean, and what cannot be compared.",
        "**Dark**: inside TLS, to this server; `watch --tls-tap` sees it.\n\n"
        "**In sight**: in clear on the same servers, *ours to others included*.\n",
    )


def not_seen_whole() -> Panel:
    by_result = _to_us(_DAY, "result", result=but("whole"))
    return lines(
        "Encrypted sessions not seen whole, each over the day before",
        "Of all encrypted sessions, but for those to others. partial: something is missing, and what "
        "was seen counts. unsure: it may belong to another session, so nothing counts. missed: "
        "nothing was seen, as where the server's TLS library can't be tapped.",
        Query(f"{by_result} / on() group_left() ({_to_us(_DAY)} > 0)", "{{result}}"),
        unit=SHARE,
        decimals=1,
        colours_by_name={
            "partial": colours.PARTIAL,
            "unsure": colours.UNKNOWN,
            "missed": colours.NOTICE,
        },
        stacked=True,
        no_value=_NO_MAIL,
    )


def seen_by_port() -> Panel:
    sessions = f"{_to_us(_DAY, 'port')} > 0"

    def share(result: str) -> str:
        return ratio(_to_us(_DAY, "port", result=result), _to_us(_DAY, "port"))

    return rows(
        "Encrypted sessions by port, last day",
        "How they were seen inside. What we send to others is not among them: it is decrypted there.",
        Query(sessions, "Sessions", unit=COUNT),
        Query(share("whole"), "Whole", colours.HIDDEN),
        Query(share("partial"), "Partial"),
        Query(share("unsure"), "Unsure"),
        Query(share("missed"), "Missed"),
        keys=("port",),
        unit=SHARE,
        decimals=1,
        sort_by="Sessions",
        no_value=_NO_MAIL,
    )


# -- Dark mail and mail in sight


def _both(dark: str, in_sight: str) -> tuple[Query, Query]:
    return Query(dark, "dark", colours.HIDDEN), Query(in_sight, "in sight", colours.VISIBLE)


def messages() -> Panel:
    return figure(
        "Messages",
        _DARK_AND_IN_SIGHT + "One for each MAIL command. Dark mail that the tap missed is in no number here.",
        *_both(_counted(TAPPED_MESSAGES, _DAY), _counted(MESSAGES, _DAY)),
        unit=COUNT,
        decimals=0,
        no_value=_NO_TAP,
    )


def null_senders() -> Panel:
    return figure(
        "From the null sender",
        _DARK_AND_IN_SIGHT + "Of all messages there, those with an empty sender: bounces, most of them.",
        *_both(_null_senders("encrypted", TAPPED_MESSAGES), _null_senders("cleartext", MESSAGES)),
        unit=SHARE,
        decimals=1,
        no_value=_NO_MAIL,
    )


def recipients_a_message() -> Panel:
    return figure(
        "Recipients a message",
        _DARK_AND_IN_SIGHT + "RCPT commands for each MAIL command, whatever was answered.",
        *_both(
            ratio(_counted(TAPPED_RECIPIENTS, _DAY), _counted(TAPPED_MESSAGES, _DAY)),
            ratio(_counted(RECIPIENTS, _DAY), _counted(MESSAGES, _DAY)),
        ),
        unit=COUNT,
        decimals=2,
        no_value=_NO_MAIL,
    )


def sent_by_us() -> Panel:
    # Messages of all but outbound sessions, whatever greylite could have done with them.
    to_us = _counted(GREYLISTER_MESSAGES, _DAY, greylister="greylite")
    return figure(
        "In sight, but sent by us",
        "Of the messages in sight, those that we sent to others. Dark mail has none of these. Orange from "
        "20 %: then a difference on this board may be one between what comes and what goes.",
        Query(f"clamp_min(1 - {to_us} / ({_counted(MESSAGES, _DAY)} > 0), 0)", "sent by us"),
        unit=SHARE,
        decimals=1,
        steps=((None, colours.VISIBLE), (0.2, colours.NOTICE)),
        no_value=_NO_MAIL,
    )


def _beside(
    title: str, description: str, dark: Family, in_sight: Family, label: str, **labels: Match
) -> Panel:
    shares = _shares(dark, label, **labels), _shares(in_sight, label, **labels)
    return rows(
        title,
        _DARK_AND_IN_SIGHT + description + " The difference is in points of a hundred.",
        Query(shares[0], "Dark", colours.HIDDEN),
        Query(shares[1], "In sight", colours.VISIBLE),
        Query(f"100 * (({shares[0]}) - ({shares[1]}))", "Difference", unit=POINTS),
        keys=(label,),
        unit=SHARE,
        decimals=1,
        no_value=_NO_MAIL,
    )


def outcomes() -> Panel:
    return _beside(
        "Messages by outcome",
        "rejected: 4xx or 5xx at its end, or no recipient was taken. unknown: what would tell was not seen.",
        TAPPED_MESSAGES,
        MESSAGES,
        "outcome",
    )


def replies() -> Panel:
    return _beside(
        "Recipients by class of reply",
        "2xx: taken. 4xx: put off. 5xx: rejected. none: no reply was seen. Other replies have no row.",
        TAPPED_RECIPIENTS,
        RECIPIENTS,
        "reply_class",
        reply_class=but("other"),
    )


def _over_time(title: str, description: str, dark: str, in_sight: str) -> Panel:
    return lines(
        f"{title}, each over the day before",
        f"{description} Dark: inside TLS. In sight: in clear.",
        *_both(dark, in_sight),
        unit=SHARE,
        decimals=1,
        no_value=_NO_MAIL,
    )


def _replies_over_time(title: str, description: str, reply_class: str) -> Panel:
    def share(family: Family) -> str:
        return ratio(_counted(family, _DAY, reply_class=reply_class), _counted(family, _DAY))

    return _over_time(title, description, share(TAPPED_RECIPIENTS), share(RECIPIENTS))


def put_off_over_time() -> Panel:
    return _replies_over_time("Recipients put off", "Of all recipients there, those answered 4xx.", "4xx")


def rejected_over_time() -> Panel:
    return _replies_over_time(
        "Recipients rejected",
        "Of all recipients there, those answered 5xx. Many: addresses are tried.",
        "5xx",
    )


def null_senders_over_time() -> Panel:
    return _over_time(
        "Null senders",
        "Of all messages there, those with an empty sender. A rise is backscatter, or a list that bounces.",
        _null_senders("encrypted", TAPPED_MESSAGES),
        _null_senders("cleartext", MESSAGES),
    )


_CAME_AGAIN: Final = but("dark", "never")
_IN_CLEAR: Final = {"after": "put_off"}
"""Of the families that count what comes again after a refused STARTTLS, too."""


def _returned(family: Family, **labels: Match) -> str:
    return _counted(family, _WEEK, **labels)


def came_again() -> Panel:
    def share(family: Family, **labels: Match) -> str:
        again = _returned(family, **{**labels, "return": _CAME_AGAIN})
        return ratio(again, _returned(family, **labels))

    return figure(
        "Put off, and came again",
        "Of the recipients put off (4xx) and settled since, those that were seen again within two days, "
        "from the same network. Dark: put off inside TLS. In sight: put off in clear, and seen again in "
        "clear, so more may have come: see Hidden beside this. Our mail to others is in neither. Last week, "
        "and only where a tap runs.",
        *_both(share(TAPPED_RETURNS), share(PEER_RETURNS, **_IN_CLEAR)),
        unit=SHARE,
        decimals=1,
        no_value="no tap runs, or nothing is settled",
    )


def returns() -> Panel:
    settled = _returned(TAPPED_RETURNS), _returned(PEER_RETURNS, **_IN_CLEAR)
    in_doubt = _returned(TAPPED_RETURNS_UNKNOWN), _returned(PEER_RETURNS_UNKNOWN, **_IN_CLEAR)
    waiting = (
        total(f"{of(TAPPED_RETURNS_PENDING)} {_WHERE_TAPPED}"),
        total(f"{of(PEER_RETURNS_PENDING, **_IN_CLEAR)} {_WHERE_TAPPED}"),
    )
    put_off = tuple(" + ".join(parts) for parts in zip(settled, in_doubt, waiting, strict=True))

    def row(mail: str, expression: str) -> str:
        return f'label_replace({expression}, "mail", "{mail}", "", "")'

    def count(counts: tuple[str, str]) -> str:
        """No row, rather than one of zeros, where nothing was put off."""
        dark, in_sight = (f"{part} and ({whole} > 0)" for part, whole in zip(counts, put_off, strict=True))
        return f"{row('dark', dark)} or {row('in sight', in_sight)}"

    def of_dark(how: str) -> str:
        return row("dark", ratio(_returned(TAPPED_RETURNS, **{"return": how}), settled[0]))

    def share(how: str) -> str:
        in_sight = ratio(_returned(PEER_RETURNS, **_IN_CLEAR, **{"return": how}), settled[1])
        return f"{of_dark(how)} or {row('in sight', in_sight)}"

    return rows(
        "Put off: how it came again, last week",
        "Dark: put off inside TLS. In sight: put off in clear. Settled: it came again, or two days are over. "
        "Shares are of these, and the first return counts. Other address: of the same network. Hidden: the "
        "peer came, and nobody saw what it brought. For dark mail that is a session that the tap missed; for "
        "mail in sight it is any session inside TLS, so what came again there is here. Never: nothing of it "
        "within two days. In doubt: nobody can tell. Waiting, now: may still come.",
        Query(count(settled), "Settled", unit=COUNT),
        Query(of_dark("inside_tls"), "Inside TLS"),
        Query(share("clear"), "In clear"),
        Query(share("other_address"), "Other address"),
        Query(share("dark"), "Hidden"),
        Query(share("never"), "Never"),
        Query(count(in_doubt), "In doubt", unit=COUNT),
        Query(count(waiting), "Waiting", unit=COUNT),
        keys=("mail",),
        unit=SHARE,
        decimals=1,
        no_value=_NOTHING_PUT_OFF,
        no_cell="–",
    )


# -- Passwords inside TLS


def auth_over_time() -> Panel:
    return lines(
        "AUTH inside TLS by mechanism",
        "AUTH commands that the tap saw, each over the hour before, whatever was answered. Here, unlike in "
        "clear, PLAIN and LOGIN are well. Mechanisms that were never seen in the chosen time are left out.",
        Query(f"{_counted(TAPPED_AUTH, _HOUR, 'mechanism')} > 0", "{{mechanism}}"),
        unit=COUNT,
        decimals=0,
        colours_by_name={
            "PLAIN": colours.HIDDEN,
            "LOGIN": colours.HIDDEN_FROM_START,
            "CRAM-MD5": colours.PARTIAL,
        },
        events=True,
        no_value="no tap runs, or no AUTH",
    )


def auth_by_port() -> Panel:
    return bars(
        "AUTH inside TLS by port and mechanism, last day",
        "On 25 hardly anybody has reason to log in: it is more likely somebody who tries passwords.",
        Query(f"sort_desc({_counted(TAPPED_AUTH, _DAY, 'port', 'mechanism')} > 0)", "{{port}} {{mechanism}}"),
        unit=COUNT,
        decimals=0,
        colour=colours.HIDDEN,
        no_value="no tap runs, or no AUTH",
    )


# -- The tap itself


def libraries_over_time() -> Panel:
    return lines(
        "TLS libraries attached",
        "Files, by server. None: the tap sees nothing. It changes when a mail server comes, goes, or is "
        "updated.",
        Query(f"{of(TLS_TAP_LIBRARIES)} {_WHERE_TAPPED}", "{{instance}}"),
        unit=COUNT,
        decimals=0,
        no_value=_NO_TAP,
    )


def events_lost_over_time() -> Panel:
    return lines(
        "Events lost",
        "Events of the tap, each over the hour before: we read too slowly, or the processor was busy.",
        Query(_counted(TLS_TAP_EVENTS_LOST, _HOUR, "instance"), "{{instance}}"),
        unit=COUNT,
        decimals=0,
        events=True,
        no_value=_NO_TAP,
    )
