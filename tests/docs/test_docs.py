"""The documents name everything that there is, and nothing that there is not."""

import enum
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from monitor.anomalies import Anomaly
from monitor.cli import doctor, read, settings, watch
from monitor.metrics.families import FAMILIES, PORT
from monitor.sessions import record
from monitor.sessions.record import SessionRecord

DOCS = Path(__file__).parents[2] / "docs"


def _rows(name: str) -> dict[str, str]:
    """Each table row by each name in its first cell."""
    rows = {}
    for line in (DOCS / name).read_text().splitlines():
        if line.startswith("| `"):
            for key in re.findall(r"`([^`]+)`", line.split("|")[1]):
                rows[key] = line
    return rows


def test_every_metric_is_documented_with_its_labels_and_no_other_is() -> None:
    rows = _rows("metrics.md")
    assert set(rows) == {family.name for family in FAMILIES}
    for family in FAMILIES:
        assert tuple(re.findall(r"`(\w+)`", rows[family.name].split("|")[2])) == family.label_names


@pytest.mark.parametrize("name", ["smtp_monitor_packets_total", "smtp_monitor_packets_dropped_total",
                                  "smtp_monitor_tshark_restarts_total",
                                  "smtp_monitor_sessions_incomplete_total", "smtp_monitor_records_total",
                                  "smtp_recipients_total", "smtp_bytes_total",
                                  "smtp_null_sender_messages_total",
                                  "smtp_tapped_sessions_total",
                                  "smtp_tapped_returns_total",
                                  "smtp_tapped_returns_unknown_total"])  # fmt: skip
def test_label_values_that_stand_nowhere_else_are_documented(name: str) -> None:
    family = next(family for family in FAMILIES if family.name == name)
    for label in family.labels:
        if label is not PORT:
            assert label.values is not None
            for value in label.values:
                assert f"`{value}`" in _rows("metrics.md")[name]


def test_every_anomaly_is_documented_and_no_other_is() -> None:
    assert set(_rows("anomalies.md")) == set(Anomaly)


def _fields(cls: type) -> Iterator[tuple[str, type]]:
    """Every field of a record, the nested ones too."""
    for name, hint in typing.get_type_hints(cls).items():
        yield name, hint
        for inner in (hint, *typing.get_args(hint)):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                yield from _fields(inner)


def test_every_field_of_the_record_is_documented() -> None:
    text = (DOCS / "record.md").read_text()
    fields = dict(_fields(SessionRecord))
    assert {"wire_bytes", "ja4", "gap_bytes", "mail_from"} <= set(fields)
    for name in fields:
        assert re.search(rf"`(?:[\w\[\]]+\.)*{name}(?:\[\])?`", text), name


def test_every_value_of_the_records_closed_sets_is_documented() -> None:
    text = (DOCS / "record.md").read_text()
    sets: list[type[enum.Enum]] = [
        value
        for value in vars(record).values()
        if isinstance(value, type) and issubclass(value, enum.Enum) and value.__module__ == record.__name__
    ]
    assert len(sets) > 5
    for closed_set in sets:
        for member in closed_set:
            assert f"`{member.value}`" in text, member


@pytest.mark.parametrize("module", [read, watch, doctor])
def test_every_option_is_documented_with_its_environment_variable(module: types.ModuleType) -> None:
    command: click.Command = module.command
    section = (DOCS / "cli.md").read_text().split(f"\n## {command.name}\n")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(--[\w-]+)` \| (?:`(\w+)` )?\|", section, flags=re.M)
    options = [param for param in command.params if isinstance(param, click.Option)]
    with click.Context(command, **command.context_settings) as context:
        assert documented == [
            (
                option.opts[0],
                option.envvar or f"{context.auto_envvar_prefix}_{str(option.name).upper()}"
                if option.allow_from_autoenv
                else "",
            )
            for option in options
        ]


def test_the_documented_settings_file_is_right(tmp_path: Path) -> None:
    example = (DOCS / "cli.md").read_text().split("```toml\n")[1].split("```")[0]
    path = tmp_path / "settings.toml"
    path.write_text(example)
    with watch.command.make_context("watch", []) as context:
        assert len(settings.load(str(path), context)) == 5
