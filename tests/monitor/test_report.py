"""The report: its numbers, and how it reads."""

import io
from collections.abc import Callable

import pytest
from msgspec.structs import replace
from rich.console import Console

from monitor.anomalies import Anomaly
from monitor.metrics.countries import CountrySlots
from monitor.metrics.tally import Tally
from monitor.peers import Peers
from monitor.report.findings import Advice, Observed, advice, funnel, sight
from monitor.report.layout import percent, size
from monitor.report.table import MEANINGS, print_report
from monitor.sessions.record import (
    ByteCounts,
    Endpoint,
    Envelope,
    Location,
    SessionRecord,
    Starttls,
    StarttlsOutcome,
)
from monitor.simulation.simulation import Simulation
from probes.probe import DropSite, PacketCounts, Verdict

MakeRecord = Callable[..., SessionRecord]


@pytest.fixture
def tally() -> Tally:
    return Tally([25, 465, 587])


def _printed(
    tally: Tally,
    packets: PacketCounts | None = None,
    handshakes: int = 0,
    encoding: str = "utf-8",
    width: int = 80,
    peers: Peers | None = None,
    simulation: Simulation | None = None,
) -> str:
    octets = io.BytesIO()
    file = io.TextIOWrapper(octets, encoding=encoding)
    console = Console(file=file, width=width)
    observed = Observed(
        counts=tally.snapshot(),
        ports=tally.ports,
        packets=packets or PacketCounts(),
        handshakes_incomplete=handshakes,
        peers=peers or Peers(),
        simulation=simulation,
    )
    print_report(console, observed)
    file.flush()
    return octets.getvalue().decode(encoding)


def _starttls(outcome: StarttlsOutcome) -> Starttls:
    return Starttls(True, 1, (220,), outcome)


def test_the_share_leaves_out_sessions_without_mail_and_bounds_what_it_does_not_know(
    tally: Tally, make_record: MakeRecord
) -> None:
    for variant, times in {"starttls": 6, "cleartext": 3, "lost": 1, "scan": 5}.items():
        for _ in range(times):
            tally.count(make_record(variant))
    found = sight(tally.snapshot())
    assert (found.hidden, found.with_mail, found.hidden_at_most, found.sessions) == (6, 10, 7, 15)
    text = _printed(tally)
    assert "60.0 %  of sessions: 6 of 10 (without 5 that carried no mail)" in text
    assert "between 60.0 % and 70.0 %: 1 session not captured well enough to tell" in text


def test_a_port_counts_for_itself(tally: Tally, make_record: MakeRecord) -> None:
    tally.count(make_record("smtps"))
    tally.count(make_record())
    assert sight(tally.snapshot(), "465").hidden == 1
    assert sight(tally.snapshot(), "25").hidden == 0
    text = _printed(tally)
    assert "  465" in text
    assert "  all" in text
    assert "  587" not in text


def test_each_step_of_the_funnel_holds_the_next(tally: Tally, make_record: MakeRecord) -> None:
    for outcome in StarttlsOutcome:
        tally.count(make_record(starttls=_starttls(outcome)))
    steps = funnel(tally.snapshot())
    assert (steps.reached, steps.offered, steps.requested, steps.established) == (7, 5, 4, 1)
    assert steps.reached - steps.established == sum(steps.fell_out.values())
    assert steps.not_reached == steps.unknown == 1


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        (0, 0, "-"),
        (0, 7, "0 %"),
        (7, 7, "100 %"),
        (1, 3, "33.3 %"),
        (99_999, 100_000, "99.9 %"),
        (1, 100_000, "0.1 %"),
    ],
)
def test_all_and_none_are_never_said_by_rounding(part: int, whole: int, said: str) -> None:
    assert percent(part, whole) == said


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (999_900, "1.00 MB"),
        (17_000_000, "17.0 MB"),
        (5 * 10**15, "5,000 TB"),
    ],
)
def test_sizes_have_three_digits(octets: int, said: str) -> None:
    assert size(octets) == said


def test_without_a_session_the_report_says_where_it_looked(tally: Tally) -> None:
    packets = PacketCounts()
    packets.seen[Verdict.OTHER_PORT] = 1
    text = _printed(tally, packets)
    assert "no session was seen on port 25, 465 or 587" in text
    assert "1 packet read, 0 of them on the watched ports" in text
    assert "By port" not in text


def test_scans_alone_give_no_share(tally: Tally, make_record: MakeRecord) -> None:
    tally.count(make_record("scan"))
    text = _printed(tally, handshakes=1)
    assert "There was none: 1 session, and no mail in any of them." in text
    assert "1 connection never got past the TCP handshake" in text


def test_one_is_singular(tally: Tally, make_record: MakeRecord) -> None:
    tally.count(make_record())
    text = _printed(tally)
    assert "1 message: 1 accepted" in text
    assert "3 recipients: 1 accepted (2xx), 1 refused (5xx), 1 without a reply" in text
    assert "1 AUTH command in clear: 1 PLAIN" in text


def test_no_line_ends_in_a_colon(tally: Tally, make_record: MakeRecord) -> None:
    """Nothing fell out, nobody was named: then there is nothing to break down."""
    unnamed = replace(make_record().transactions[0], recipients=())
    tally.count(make_record(transactions=(unnamed,), starttls=_starttls(StarttlsOutcome.ESTABLISHED)))
    text = _printed(tally)
    assert "  0 recipients\n" in text
    assert "fell out" not in text
    assert ":\n" not in text


def test_losses_are_said(tally: Tally, make_record: MakeRecord) -> None:
    packets = PacketCounts()
    packets.dropped[DropSite.KERNEL] = 17
    tally.count(make_record("lost"))
    text = _printed(tally, packets)
    assert "17 packets lost: 17 by the kernel" in text
    assert "sessions not seen whole: 1 packets missing, 1 beginning missing, 1 gone silent" in text


def test_the_report_fits_eighty_columns_without_blanks_at_the_end(
    tally: Tally, make_record: MakeRecord
) -> None:
    big = ByteCounts(10**12, 10**12, 10**12, 10**12)
    for outcome in StarttlsOutcome:
        tally.count(make_record(starttls=_starttls(outcome), bytes=big, anomalies=tuple(Anomaly)))
    for variant in ("starttls", "smtps", "scan", "lost"):
        for port in (25, 465, 587):
            tally.count(make_record(variant, server=Endpoint("192.0.2.2", port)))
    lines = _printed(tally, width=300).splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line != line.rstrip()]
    for narrow in _printed(tally, width=40).splitlines():
        assert len(narrow) <= 40


def test_nothing_from_the_wire_is_printed(tally: Tally, make_record: MakeRecord) -> None:
    for variant in ("cleartext", "starttls", "smtps"):
        tally.count(make_record(variant))
    text = _printed(tally)
    for wire in ("example", "192.0.2", "ECDHE", "t13d"):
        assert wire not in text


def test_a_terminal_without_unicode_gets_plain_characters(tally: Tally, make_record: MakeRecord) -> None:
    for variant in ("cleartext", "starttls", "lost"):
        tally.count(make_record(variant, envelope=Envelope.PARTIAL if variant == "lost" else Envelope.HIDDEN))
    assert "#" in _printed(tally, encoding="ascii")


def test_every_anomaly_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Anomaly)


def test_the_report_says_what_each_program_could_have_done(tally: Tally, make_record: MakeRecord) -> None:
    for variant in ("cleartext", "starttls", "starttls", "smtps", "scan", "lost"):
        tally.count(make_record(variant))
    lines = [line.split() for line in _printed(tally).splitlines()]
    rows = {line[0]: line[1:] for line in lines if len(line) == 7}
    #                          decided bypassed blind stalled nothing unknown
    assert rows["greylite"] == ["1", "2", "1", "0", "1", "1"]
    assert rows["jgreylist"] == ["6", "0", "0", "0", "0", "0"]
    assert rows["recordio"] == ["1", "0", "3", "0", "1", "1"]
    assert "greylite lost its sight: 2 by STARTTLS, 1 by TLS from the first byte" in _printed(tally)


def test_advice_counts_what_would_come_back_and_what_would_stay_away(
    tally: Tally, make_record: MakeRecord
) -> None:
    peers = Peers()
    refused = Starttls(True, 1, (454,), StarttlsOutcome.REFUSED)
    records = [
        # One peer gets its TLS twice, and goes away when it does not; another always gets it.
        make_record("starttls"),
        make_record("starttls"),
        make_record("scan", starttls=refused, start="2026-11-22T13:00:00.000000Z"),
        make_record("starttls", client=Endpoint("192.0.2.3", 1)),
        make_record("smtps"),
    ]
    for record in records:
        tally.count(record)
        peers.record(record)
    peers.tick(1_800_000_000_000_000_000)  # 2027: the window is long over
    found = advice(tally.snapshot(), peers.dark_sessions)
    assert found == Advice(missed=4, by_starttls=3, of_peers_that_require_tls=2, of_peers_never_tested=1)
    text = _printed(tally, peers=peers)
    assert "3  STARTTLS not offered (DENY_TLS=1): 2 of peers that leave without TLS, 1 of" in text
    assert "4  a greylister that keys on the address alone" in text
    assert "4  a policy service of the mail server" in text
    assert "STARTTLS refused       1       0          0      0       1" in text


def test_there_is_no_advice_where_nothing_was_missed(tally: Tally, make_record: MakeRecord) -> None:
    tally.count(make_record())
    assert "What would bring" not in _printed(tally)


def test_the_report_says_what_a_simulated_greylister_would_have_decided(
    tally: Tally, make_record: MakeRecord
) -> None:
    simulation = Simulation(["greylite"])
    for variant in ("cleartext", "starttls"):
        tally.count(make_record(variant))
        simulation.record(make_record(variant))
    text = _printed(tally, simulation=simulation)
    simulation.close()
    assert "If greylite stood here" in text
    assert "decisions: 1 put off, 1 let through unread for TLS" in text
    assert "1 triplet still to come again" in text


def test_countries_are_listed_by_sessions(make_record: MakeRecord) -> None:
    tally = Tally([25], CountrySlots(1))
    for country in ("DE", "DE", "FR", None):
        location = Location(country, None, None) if country is not None else None
        tally.count(make_record("starttls", client_location=location))
    rows = [line.split() for line in _printed(tally).splitlines()]
    assert [row for row in rows if row and row[0] in ("DE", "other", "unknown")] == [
        ["DE", "2", "2"],
        ["other", "1", "1"],
        ["unknown", "1", "1"],
    ]
