"""Flags before environment, environment before the TOML file, that before defaults; and mistakes in it."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click
import pytest

from monitor.cli.parameters import Countries
from monitor.cli.settings import SettingsError
from monitor.cli.watch import command


def _parameters(*arguments: str) -> dict[str, Any]:
    """What `smtp-horizon watch ARGUMENTS` would run with."""
    with command.make_context("watch", list(arguments)) as context:
        return dict(context.params)


def _file(folder: Path, text: str) -> str:
    path = folder / "settings.toml"
    path.write_text(text)
    return str(path)


def test_defaults() -> None:
    parameters = _parameters()
    assert parameters["interface"] == ("any",)
    assert parameters["listen"] == ("127.0.0.1", 9825)
    assert parameters["ports"] == {25, 465, 587}
    assert parameters["probe"] == "auto"
    assert parameters["records"] is None


def test_each_source_goes_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _file(
        tmp_path,
        'interface = ["eth0", "eth1"]\nlisten = "[::1]:1"\nports = [25, 2525]\n'
        'local-network = "192.0.2.0/24"\n',
    )
    monkeypatch.setenv("SMTP_HORIZON_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("SMTP_HORIZON_PORTS", "26")
    parameters = _parameters("--ports", "27,28", "--config", config)
    assert parameters["ports"] == {27, 28}, "a flag goes before the environment"
    assert parameters["listen"] == ("127.0.0.1", 2), "the environment goes before the file"
    assert parameters["interface"] == ("eth0", "eth1"), "the file goes before the default"
    assert parameters["local_network"] == (ip_network("192.0.2.0/24"),)
    assert parameters["probe"] == "auto"


def test_the_config_file_itself_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_HORIZON_CONFIG", _file(tmp_path, 'records = "r.jsonl"\n'))
    monkeypatch.setenv("SMTP_HORIZON_INTERFACE", "eth2 eth3")
    parameters = _parameters()
    assert parameters["records"] == "r.jsonl"
    assert parameters["interface"] == ("eth2", "eth3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '\nlisten = "127.0.0.1:1"\ninterfaces = "lo"\n',
            ":3: unknown key 'interfaces'; did you mean 'interface'?",
        ),
        (
            'local_network = ["192.0.2.0/24"]\n',
            ":1: unknown key 'local_network'; did you mean 'local-network'?",
        ),
        (
            '# a\n\n[watch]\nlisten = "x"\n',
            ":3: unknown key 'watch'; there are countries, geoip, interface, listen",
        ),
        ("listen = 9825\n", ":1: listen must be a string"),
        (
            'listen = "127.0.0.1"\n',
            ":1: listen: '127.0.0.1' names no address: give HOST:PORT, as 127.0.0.1:9825",
        ),
        ("ports = 25\n", ":1: ports must be a list of numbers, as [25, 587]"),
        ("ports = [true]\n", ":1: ports must be a list of numbers, as [25, 587]"),
        ("ports = [70000]\n", ":1: ports: '70000' is no port: give numbers from 1 to 65535, as 25,587"),
        ("interface = [1]\n", ":1: interface must be a string or a list of strings"),
        ('probe = "bpf"\n', ":1: probe: 'bpf' is not one of 'auto', 'ebpf', 'pyshark'."),
        ('local-network = ["192.0.2.1/24"]\n', "did you mean 192.0.2.0/24?"),
        ('listen = "a"\nlisten = "b"\n', ":2: Cannot overwrite a value"),
        ("listen =\n", ":1: Invalid value"),
        ("ports = " + "[" * 5_000, ": is nested too deeply"),
        ("ports = " + "1" * 5_000, ": a number has too many digits"),
        ('config = "other.toml"\n', ":1: unknown key 'config'"),
    ],
)
def test_a_mistake_is_said_with_file_line_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    config = _file(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        _parameters("--config", config)
    assert message in caught.value.message
    assert caught.value.message.startswith(config)
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        _parameters("--config", str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("127.0.0.1:9825", ("127.0.0.1", 9825)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_listen_understands(text: str, meant: tuple[str, int]) -> None:
    assert _parameters("--listen", text)["listen"] == meant


@pytest.mark.parametrize(
    "text", ["9825", ":9825", "::1:9825", "host:", "host:65536", "host:-1", "host:٣", "[::1]"]
)
def test_listen_refuses(text: str) -> None:
    with pytest.raises(click.BadParameter):
        _parameters("--listen", text)


@pytest.mark.parametrize("text", ["", "0", "65536", "25,,587", "smtp", "-1", "٣", "2_5"])
def test_ports_refuses(text: str) -> None:
    with pytest.raises(click.BadParameter):
        _parameters("--ports", text)


def test_the_site_may_be_described_in_the_file(tmp_path: Path) -> None:
    config = _file(
        tmp_path,
        'tls-ends = "proxy"\nsimulate = ["greylite", "postgrey"]\nsimulate-state = "s.db"\n'
        'simulate-delay = 60\ngeoip = "country.mmdb"\ncountries = ["de", "FR"]\n',
    )
    parameters = _parameters("--config", config)
    assert parameters["tls_ends"] == "proxy"
    assert parameters["simulate"] == ("greylite", "postgrey")
    assert (parameters["simulate_state"], parameters["simulate_delay"]) == ("s.db", 60)
    assert parameters["geoip"] == ("country.mmdb",)
    assert parameters["countries"] == Countries(2, ("DE", "FR"))
    assert _parameters("--config", _file(tmp_path, "countries = 7\n"))["countries"] == Countries(7)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("countries = true", "countries must be a number, or a list of codes"),
        ("countries = 1000", "a number up to 250"),
        ('simulate-delay = "long"', "simulate-delay must be a number"),
        ("simulate-delay = 0", "simulate-delay: 0 is not in the range"),
        ('tls-ends = "nowhere"', "tls-ends: 'nowhere' is not one of"),
    ],
)
def test_mistakes_in_it_are_said_with_their_line(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        _parameters("--config", _file(tmp_path, f"ports = [25]\n{line}\n"))
    assert "settings.toml:2: " in error.value.message
    assert said in error.value.message
