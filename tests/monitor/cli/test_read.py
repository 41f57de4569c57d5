"""`smtp-horizon read`: the real program on real captures."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from monitor.cli.progress import PATIENCE_SECONDS
from tests.lab.prometheus import PROMTOOL, WHERE_FROM

PROGRAM = str(Path(sys.executable).with_name("smtp-horizon"))
CAPTURES = Path(__file__).parents[2] / "captures"


def _run(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([PROGRAM, *arguments], capture_output=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def _read(*arguments: str) -> bytes:
    done = _run("read", *arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def _capture(name: str) -> str:
    return str(CAPTURES / f"{name}.pcap")


@pytest.mark.parametrize("name", ["plain_single", "starttls_tls13", "starttls_454", "smtps_465"])
def test_jsonl_holds_the_sessions_of_the_capture(name: str) -> None:
    truth = json.loads((CAPTURES / f"{name}.truth.json").read_text())
    records = [json.loads(line) for line in _read("--format", "jsonl", _capture(name)).splitlines()]
    assert len(records) == len(truth["sessions"])
    assert {record["schema_version"] for record in records} == {1}


def test_jsonl_is_the_default_where_standard_output_is_no_terminal() -> None:
    assert json.loads(_read(_capture("plain_single")))["envelope"] == "visible"


def test_the_table_is_the_default_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run([PROGRAM, "read", _capture("plain_single")], stdout=theirs, check=False)
    os.close(theirs)
    text = os.read(ours, 65_536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "beyond the reach of a stream watcher?" in text


def test_the_table_answers_the_question() -> None:
    text = _read("--format", "table", _capture("starttls_tls13")).decode()
    question, answer, *_ = text.splitlines()
    assert question == "How much of this mail is beyond the reach of a stream watcher?"
    assert answer == "   100 %  of sessions: 7 of 7"
    assert "TLSv1.3" in text


def test_several_files_are_one_capture_and_standard_input_is_one_too() -> None:
    names = ("plain_single", "smtps_465")
    both = _read("--format", "jsonl", *(_capture(name) for name in names))
    assert len(both.splitlines()) == 6
    done = _run("read", "--format", "jsonl", "-", input=Path(_capture("smtps_465")).read_bytes())
    assert len(done.stdout.splitlines()) == 5


def test_the_metrics_agree_with_the_records() -> None:
    arguments = [
        _capture(name) for name in ("plain_servers", "starttls_tls12", "smtps_465", "scans", "auth_clear")
    ]
    records = [json.loads(line) for line in _read("--format", "jsonl", *arguments).splitlines()]
    samples = {}
    for line in _read("--format", "metrics", *arguments).decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            samples[name] = float(value)

    def total(name: str) -> float:
        return sum(value for sample, value in samples.items() if sample.partition("{")[0] == name)

    assert total("smtp_sessions_total") == len(records) > 20
    assert total("smtp_starttls_total") == len(records)
    assert samples["smtp_session_duration_seconds_count"] == len(records)
    assert total("smtp_messages_total") == sum(len(record["transactions"]) for record in records)
    assert total("smtp_auth_total") == sum(len(record["auth"]) for record in records) > 0
    assert total("smtp_bytes_total") == sum(sum(record["bytes"].values()) // 2 for record in records)
    hidden = sum(record["envelope"] in ("hidden", "partial") for record in records)
    assert total("smtp_tls_handshakes_total") == hidden > 0
    assert samples["smtp_tcp_handshakes_incomplete_total"] > 0
    assert "process_cpu_seconds_total" not in samples


@pytest.mark.skipif(not PROMTOOL.exists(), reason=WHERE_FROM)
def test_promtool_finds_nothing_to_say() -> None:
    text = _read("--format", "metrics", _capture("starttls_tls12"))
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_local_networks_decide_the_direction() -> None:
    record = json.loads(_read(_capture("plain_single")))
    assert record["direction"] == "unknown"
    inbound = json.loads(_read("--local-network", record["server"]["ip"], _capture("plain_single")))
    assert inbound["direction"] == "inbound"
    outbound = json.loads(_read("--local-network", record["client"]["ip"], _capture("plain_single")))
    assert outbound["direction"] == "outbound"


def test_ports_that_are_not_watched_give_no_session() -> None:
    assert _read("--ports", "2525", "--format", "jsonl", _capture("plain_single")) == b""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["read", "/nonexistent.pcap"], "/nonexistent.pcap"),
        (["read", __file__], "no pcap or pcapng capture"),
        (["read", "/"], "/"),
        (["read"], "Missing argument 'FILE...' (try 'smtp-horizon read --help')"),
        (["read", "--frmat", "table", "x"], "Did you mean '--format'?"),
        (["read", "--format", "xml", "x"], "'table', 'jsonl', 'metrics'"),
        (["read", "--ports", "smtp", "x"], "'smtp' is no port"),
        (["read", "--local-network", "300.1.1.1", "x"], "is no network"),
        (["read", "--probe", "pyshark", "/nonexistent.pcap"], "/nonexistent.pcap"),
        (["read", "--probe", "pyshark", __file__], "no capture in a format that Wireshark knows"),
        (["read", "--probe", "pyshark", "/"], "/"),
        (["raed"], "No such command 'raed'"),
        (["read", "no\x1b[31msuch"], "no\\x1b[31msuch"),
    ],
)
def test_what_cannot_begin_is_one_line_and_status_2(arguments: list[str], said: str) -> None:
    done = _run(*arguments)
    text = done.stderr.decode()
    assert done.returncode == 2
    assert done.stdout == b""
    assert text.startswith("Error: ")
    assert text.count("\n") == 1
    assert said in text
    assert "\x1b" not in text


def test_a_cut_capture_gives_all_up_to_the_cut_a_warning_and_status_1(tmp_path: Path) -> None:
    whole = Path(_capture("plain_servers")).read_bytes()
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    done = _run("read", "--format", "jsonl", str(cut))
    assert done.returncode == 1
    assert done.stderr.startswith(b"Warning: ")
    assert done.stderr.count(b"\n") == 1
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert 2 <= len(records) < 8
    assert records[-1]["ended"] == "capture_ended"


@pytest.mark.parametrize("output_format", ["jsonl", "table", "metrics"])
def test_a_reader_that_has_seen_enough_is_no_error(output_format: str) -> None:
    command = (
        f"{PROGRAM} read --format {output_format} {_capture('plain_servers')} | true; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"0\n", b"")


@pytest.mark.parametrize("output_format", ["jsonl", "table", "metrics"])
def test_a_full_disk_is_one_line_and_status_1(output_format: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [PROGRAM, "read", "--format", output_format, _capture("plain_servers")],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"Warning: ")
    assert b"No space left on device" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_an_unexpected_error_is_one_line_and_status_1_and_says_how_to_see_more() -> None:
    program = (
        "import sys; from monitor.cli import main, read; import monitor.sessions.table as table;"
        "table.SessionTable.segment = lambda *_: 1 / 0;"
        f"sys.exit(main.run(['read', {_capture('plain_single')!r}]))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr == b"Error: ZeroDivisionError: division by zero; set SMTP_HORIZON_DEBUG=1 to see where\n"
    )
    environment = {**os.environ, "SMTP_HORIZON_DEBUG": "1"}
    assert b"Traceback" in subprocess.run(command, capture_output=True, check=False, env=environment).stderr


def test_a_progress_bar_comes_late_and_goes_again(tmp_path: Path) -> None:
    """A pipe that is slow makes the work long enough for a bar; standard error is a terminal here."""
    data = Path(_capture("plain_servers")).read_bytes()
    ours, theirs = pty.openpty()
    read_end, write_end = os.pipe()
    with (tmp_path / "out").open("wb") as out, os.fdopen(write_end, "wb", buffering=0) as pipe:
        command = [PROGRAM, "read", "--format", "jsonl", "-"]
        environment = {**os.environ, "TERM": "xterm"}  # a dumb one gets no bar
        with subprocess.Popen(command, stdin=read_end, stdout=out, stderr=theirs, env=environment) as reading:
            pipe.write(data[:2000])
            while _waiting_bytes(read_end):  # until it has begun
                assert reading.poll() is None
                time.sleep(0.02)
            time.sleep(1.1 * PATIENCE_SECONDS)
            pipe.write(data[2000:])
            pipe.close()
            os.close(read_end)
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert reading.returncode == 0
    assert "━" in shown
    assert len((tmp_path / "out").read_bytes().splitlines()) == 8


def _waiting_bytes(pipe: int) -> int:
    (waiting,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(waiting)


def test_jsonl_loads_nothing_that_it_does_not_need() -> None:
    program = (
        "import sys; from monitor.cli.main import run;"
        f"run(['read', '--format', 'jsonl', {_capture('plain_single')!r}]);"
        "heavy = {'rich', 'prometheus_client', 'asyncio', 'h11', 'yaml', 'bcrypt', 'bcc', 'psutil',"
        "'pyshark', 'monitor.cli.watch', 'monitor.tapped', 'probes.tls_tap'};"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stderr == b"set()\n"


def test_help_and_version() -> None:
    assert _run("--version").stdout.startswith(b"smtp-horizon 0.")
    for command in ([], ["read"], ["watch"], ["doctor"]):
        done = _run(*command, "--help")
        assert done.returncode == 0
        assert b"Examples:" in done.stdout
    assert _run().returncode == 2


def test_garbage_is_collected_once_the_reading_has_begun() -> None:
    """It is not while modules are imported, and a long reading must not stay without."""
    program = (
        "import atexit, gc, sys; from monitor.cli.main import main; "
        "atexit.register(lambda: print(gc.isenabled(), file=sys.stderr)); main()"
    )
    arguments = [sys.executable, "-c", program, "read", "--format", "jsonl", _capture("plain_single")]
    done = subprocess.run(arguments, capture_output=True, check=True)
    assert done.stderr == b"True\n"
