"""Every alert has its runbook and every runbook its alert; what it tells to run can be run."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import click
import pytest
from msgspec import to_builtins

from dashboards import rules
from monitor.anomalies import Anomaly
from monitor.cli.main import commands
from monitor.sessions.record import Envelope, StarttlsOutcome, Tapped, TapResult
from tests.dashboards.test_rules import ALERTS
from tests.dashboards.vocabulary import faults, load_rules, vocabulary

FOLDER: Final = Path(rules.__file__).parents[1] / "runbooks"
CAPTURES: Final = Path(__file__).parents[1] / "captures"
NAMES: Final = sorted(path.stem for path in FOLDER.iterdir())
SECTIONS: Final = ("Meaning", "Impact", "Diagnosis", "Action")
PROGRAM: Final = Path(sys.executable).with_name("smtp-horizon")
RECORDS: Final = "/var/log/smtp-horizon.jsonl"
KNOWN: Final = vocabulary(load_rules())


def sections(name: str) -> dict[str, str]:
    title, *parts = re.split(r"^## (.+)$", (FOLDER / f"{name}.md").read_text(), flags=re.MULTILINE)
    assert title.strip() == f"# {name}"
    return dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))


def blocks(name: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", (FOLDER / f"{name}.md").read_text(), re.MULTILINE | re.DOTALL
    )


def command_lines(name: str) -> list[str]:
    return [line for block in blocks(name, "sh") for line in block.splitlines()]


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    assert sorted(alert.name for alert in ALERTS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_has_its_four_sections_and_something_to_do(name: str) -> None:
    found = sections(name)
    assert tuple(found) == SECTIONS
    assert all(found.values())
    assert re.findall(r"^- \S", found["Action"], re.MULTILINE)
    assert blocks(name, "promql") or blocks(name, "sh")


@pytest.mark.parametrize("name", NAMES)
def test_queries_in_a_runbook_name_what_is_exported(name: str) -> None:
    assert [fault for query in blocks(name, "promql") for fault in faults(query, KNOWN)] == []


@pytest.mark.parametrize("name", NAMES)
def test_links_in_a_runbook_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (FOLDER / f"{name}.md").read_text())
    assert [link for link in links if not (FOLDER / link).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_command_lines_are_ones_that_a_shell_can_read(name: str) -> None:
    for line in command_lines(name):
        subprocess.run(["bash", "-n", "-c", line], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_options_and_commands_of_ours_are_ones_that_there_are(name: str) -> None:
    with click.Context(commands) as context:
        known = {word: commands.get_command(context, word) for word in commands.list_commands(context)}
    options = {
        option for command in known.values() if command for given in command.params for option in given.opts
    }
    text = (FOLDER / f"{name}.md").read_text()
    ours = set(re.findall(r"`(--[a-z-]+)", text))
    assert ours <= options
    assert set(re.findall(r"(?:^|`)smtp-horizon (\w+)", text, re.MULTILINE)) <= set(known)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was captured of AUTH and STARTTLS, and copies of one record with all that can be looked for."""
    found = subprocess.run(
        [
            PROGRAM,
            "read",
            "--format",
            "jsonl",
            CAPTURES / "auth_clear.pcap",
            CAPTURES / "starttls_aborts.pcap",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    some: dict[str, Any] = json.loads(found[0])
    made = [some | {"envelope": str(envelope)} for envelope in Envelope]
    made += [some | {"anomalies": [str(anomaly)]} for anomaly in Anomaly]
    made += [some | {"starttls": some["starttls"] | {"outcome": str(outcome)}} for outcome in StarttlsOutcome]
    made += [some | {"direction": "inbound", "tapped": to_builtins(Tapped(result))} for result in TapResult]
    path = tmp_path_factory.mktemp("records") / "smtp-horizon.jsonl"
    path.write_text("\n".join([*found, *map(json.dumps, made)]) + "\n")
    return path


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize(
    "name", [name for name in NAMES if any("jq " in line for line in command_lines(name))]
)
def test_what_jq_is_to_look_for_it_finds(name: str, records: Path) -> None:
    fields = set[str]().union(*(_fields(json.loads(line)) for line in records.read_text().splitlines()))
    for line in command_lines(name):
        if line.startswith("jq "):
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", line.replace(RECORDS, str(records))],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip()
            asked = re.findall(r"\.([a-z_0-9]+)", line.split("'")[1])
            assert set(asked) <= fields


def _fields(value: Any) -> set[str]:
    """The names in JSON, at any depth."""
    if isinstance(value, dict):
        return set(value).union(*map(_fields, value.values()))
    return set[str]().union(*map(_fields, value)) if isinstance(value, list) else set()
