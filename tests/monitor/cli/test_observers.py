"""What `read` and `watch` know of the site beside the packets: greylisters, countries, what-if."""

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitor.cli.observers import Observers, SiteOptions
from monitor.cli.parameters import Countries
from monitor.peers import After, Peers, Return
from monitor.sessions.record import epoch_us
from monitor.sessions.table import SessionTable
from tests.capture_truth import CAPTURES
from tests.mmdb import write_mmdb
from tests.monitor.tapped.kernel import Kernel, flow_from, spoken
from tests.segments import PORTS, frozen_records, segments_of

PROGRAM = str(Path(sys.executable).with_name("smtp-horizon"))
GREYLISTED = str(CAPTURES / "greylist_postgrey.pcap")
WITH_TLS = str(CAPTURES / "starttls_tls13.pcap")
SITE_OPTIONS = SiteOptions(
    ports=PORTS,
    local_network=(),
    tls_ends="server",
    geoip=(),
    countries=Countries(0),
    simulate=(),
    simulate_state=None,
    simulate_delay=None,
)


def _read(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, "read", *arguments], capture_output=True, text=True, check=False)


def _records(*arguments: str) -> list[dict[str, Any]]:
    done = _read("--format", "jsonl", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _metrics(*arguments: str) -> dict[tuple[str, ...], float]:
    """`(name, label values in the order of the labels' names)` -> what is not zero."""
    done = _read("--format", "metrics", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
        if sample.value
    }


def test_where_tls_ends_moves_the_line() -> None:
    def reach(*arguments: str) -> tuple[str, str]:
        found = _records(*arguments, WITH_TLS)[0]["greylisters"]
        return found["greylite"]["reach"], found["recordio"]["reach"]

    assert reach() == ("bypassed", "blind")
    assert reach("--tls-ends", "ucspi-tls") == ("bypassed", "stalled")
    assert reach("--tls-ends", "proxy") == ("unknown", "decided")


def test_an_outbound_session_passes_no_greylister_of_ours() -> None:
    clients = sorted({record["client"]["ip"] for record in _records(GREYLISTED)})
    ours = [argument for client in clients for argument in ("--local-network", client)]
    records = _records(*ours, GREYLISTED)
    assert {record["direction"] for record in records} == {"outbound"}
    assert all(record["greylisters"] == {} for record in records)
    names = {key[0] for key in _metrics(*ours, GREYLISTED)}
    assert not any(name.startswith(("smtp_greylister_", "smtp_peer")) for name in names)


def test_countries_are_in_records_and_bounded_in_metrics(tmp_path: Path) -> None:
    client = _records(GREYLISTED)[0]["client"]["ip"]
    country = write_mmdb(tmp_path / "country.mmdb", {f"{client}/32": {"country": {"iso_code": "DE"}}})
    asn = write_mmdb(
        tmp_path / "asn.mmdb",
        {f"{client}/32": {"autonomous_system_number": 64500, "autonomous_system_organization": "Example"}},
    )
    databases = ("--geoip", country, "--geoip", asn)
    located = {"country": "DE", "asn": 64500, "as_organization": "Example"}
    known = [one for one in _records(*databases, GREYLISTED) if one["client"]["ip"] == client]
    assert known
    assert all(record["client_location"] == located for record in known)

    def by_country(*arguments: str) -> set[str]:
        return {key[1] for key in _metrics(*arguments, GREYLISTED) if key[0] == "smtp_country_sessions_total"}

    assert "DE" in by_country(*databases)
    assert "DE" not in by_country(*databases, "--countries", "0")
    assert "other" in by_country(*databases, "--countries", "FR,IT")
    assert by_country() == set(), "nobody was asked, so nothing is unknown"


def test_a_simulation_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    state = str(tmp_path / "state.db")
    arguments = ("--simulate", "greylite", "--simulate-state", state, GREYLISTED)
    first, second = _metrics(*arguments), _metrics(*arguments)
    decisions = "smtp_simulation_decisions_total"
    assert first[decisions, "deferred", "greylite"] > 0
    assert second.get((decisions, "deferred", "greylite"), 0) < first[decisions, "deferred", "greylite"]
    assert stat.S_IMODE(Path(state).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--geoip", "{tmp}/none.mmdb"], "cannot be read as a GeoIP database"),
        (["--geoip", GREYLISTED], "cannot be read as a GeoIP database"),
        (["--countries", "Germany"], "codes of countries, as DE,FR,US"),
        (["--simulate", "spamd"], "'greylite', 'postgrey'"),
        (["--simulate", "greylite", "--simulate-state", "{tmp}/no/such/folder"], "{tmp}/no/such/folder"),
        (["--simulate", "greylite", "--simulate-state", GREYLISTED], GREYLISTED),
        (["--simulate-state", "{tmp}/state.db"], "--simulate"),
        (["--tls-ends", "nowhere"], "'proxy'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = _read(*(argument.format(tmp=tmp_path) for argument in arguments), WITH_TLS)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert said.format(tmp=tmp_path) in done.stderr


def test_watch_reads_the_database_anew_on_sighup(
    start_watch: Callable[..., Any], smtp_server: Any, eventually: Callable[..., None], tmp_path: Path
) -> None:
    database = tmp_path / "country.mmdb"
    write_mmdb(database, {"127.0.0.0/8": {"country_code": "DE"}})
    watch = start_watch("--geoip", str(database))

    def sessions(country: str) -> float:
        name = f'smtp_country_sessions_total{{country="{country}",envelope="visible"}}'
        return float(watch.samples().get(name, 0))

    smtp_server.whole_session()
    eventually(lambda: sessions("DE") == 1)
    write_mmdb(database, {"127.0.0.0/8": {"country_code": "FR"}})
    watch.signal(signal.SIGHUP)
    eventually(lambda: "read anew" in watch.log)
    smtp_server.whole_session()
    eventually(lambda: sessions("FR") == 1)
    assert sessions("DE") == 1


def test_watch_keeps_its_simulation_over_a_restart(
    start_watch: Callable[..., Any], smtp_server: Any, tmp_path: Path
) -> None:
    arguments = ("--simulate", "postgrey", "--simulate-state", str(tmp_path / "state.db"))
    for _ in range(2):
        watch = start_watch(*arguments)
        smtp_server.mail()
        watch.signal(signal.SIGTERM)
        assert watch.wait() == 0
    pending = start_watch(*arguments).samples()['smtp_simulation_pending{greylister="postgrey"}']
    assert pending == 1, "the second attempt was the same triplet, and too early"


def test_a_mismatch_is_counted_and_named_by_nothing_but_the_community_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was inside says that a greeting came, and the packets that STARTTLS led there."""
    segments = segments_of("starttls_tls13")
    record = frozen_records(segments)[0]
    observers = Observers(SITE_OPTIONS, is_tapped=True)
    assert observers.tapped is not None
    begin_ns = epoch_us(record.start) * 1_000
    said = spoken("S: 220 mx.example\nC: EHLO client.example\nS: 250 ok\nC: QUIT\nS: 221 bye")
    for event in Kernel(flow=flow_from(record), at_ns=begin_ns, step_ns=1_000).begin().say(said).end().events:
        observers.tapped.event(event)
    table = SessionTable(SITE_OPTIONS.ports, observers.site, observers.record)
    for segment in segments:
        table.segment(segment)
    table.close_all()
    counts = observers.tally.snapshot()
    assert counts.verdict_mismatches == 1
    assert counts.tapped_sessions["25", "whole"] == 1
    (warning,) = caplog.messages
    assert record.community_id in warning
    assert record.client.ip not in warning


def test_what_postgrey_puts_off_inside_tls_is_seen_to_come_again_inside_tls() -> None:
    """Real packets; what was inside is told by the client that said it."""
    observers = Observers(SITE_OPTIONS, is_tapped=True)
    assert observers.tapped is not None
    segments = segments_of("greylist_postgrey")
    record_of = {(one.client.ip, one.client.port): one for one in frozen_records(segments)}
    truth = json.loads((CAPTURES / "greylist_postgrey.truth.json").read_text())
    inside = [one for one in truth["sessions"] if one["starttls"]["handshake"] == "ok"]
    assert [one["transactions"][0]["rcpts"][0]["code"] for one in inside] == [450, 250]
    for session in inside:
        record = record_of[tuple(session["client"])]
        begin_ns = (epoch_us(record.start) + epoch_us(record.end)) // 2 * 1_000
        kernel = Kernel(flow=flow_from(record), at_ns=begin_ns, step_ns=1_000).begin()
        for event in kernel.say(spoken(_said(session["transactions"]))).end().events:
            observers.tapped.event(event)
    table = SessionTable(SITE_OPTIONS.ports, observers.site, observers.record)
    for segment in segments:
        table.segment(segment)
    table.close_all()
    assert observers.tally.snapshot().tapped_sessions["25", "whole"] == len(inside)
    tapped = observers.peers.tapped_returns
    assert tapped is not None
    assert tapped.put_off[After.PUT_OFF] == tapped.returns[After.PUT_OFF, Return.INSIDE_TLS] == 1
    in_clear = Peers()
    for record in record_of.values():
        in_clear.record(record)
    assert observers.peers.returns == in_clear.returns


def _said(transactions: list[dict[str, Any]]) -> str:
    lines = ["C: EHLO client.test", "S: 250 ok"]
    for mail in transactions:
        lines += [f"C: {mail['mail_line']}", f"S: {mail['mail_code']} ok"]
        for recipient in mail["rcpts"]:
            lines += [f"C: RCPT TO:<{recipient['to']}>", f"S: {recipient['code']} told"]
    return "\n".join([*lines, "C: QUIT", "S: 221 bye"])


def test_without_a_tap_nobody_looks_inside() -> None:
    observers = Observers(SITE_OPTIONS)
    assert observers.tapped is None
    assert observers.site.tapped is None
    assert observers.peers.tapped_returns is None


# Python says so itself only from 3.13 on, and only at the end of its life.
COUNT_CONNECTIONS = """
import sqlite3, sys
from monitor.cli.main import main
still_open = []
class Connection(sqlite3.Connection):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        still_open.append(self)
    def close(self):
        super().close()
        still_open.remove(self)
connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=Connection, **options)
try:
    main()
finally:
    print(len(still_open), "still open")
"""


@pytest.mark.parametrize("file", [GREYLISTED, "/nonexistent/nosuch.pcap"])
def test_read_closes_the_table_of_its_simulation_even_if_it_cannot_begin(file: str) -> None:
    words = ["read", "--format", "jsonl", "--simulate", "greylite", file]
    done = subprocess.run(
        [sys.executable, "-c", COUNT_CONNECTIONS, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == (0 if file == GREYLISTED else 2), done.stderr
    assert done.stdout.splitlines()[-1] == "0 still open"
