"""The files in deploy/ fit each other, the program and the repository.

No container is started here: that needs Docker. Prometheus is, with the very file, against the very program.
"""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pytest
import yaml

from monitor.cli import watch
from monitor.cli.main import commands
from tests.lab.network import Namespace, Network
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.prometheus import PROMETHEUS, PROMTOOL, WHERE_FROM, Prometheus
from tests.lab.watch import Process, Watch, fetch

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
PROMETHEUS_YML: Final = DEPLOY / "prometheus/prometheus.yml"
PROVISIONING: Final = DEPLOY / "grafana/provisioning"

# Those in use here, of https://github.com/compose-spec/compose-spec/blob/main/schema/compose-spec.json:
# Compose refuses a file with a key that it does not know.
SERVICE_KEYS: Final = {
    *(
        "build",
        "image",
        "network_mode",
        "cap_drop",
        "cap_add",
        "security_opt",
        "ulimits",
        "read_only",
        "tmpfs",
    ),
    *("volumes", "command", "environment", "healthcheck", "stop_grace_period", "restart"),
}
# Those in use here, of https://grafana.com/docs/grafana/latest/administration/provisioning/:
# Grafana passes over a key that it does not know, so that a mistyped one does nothing.
DATASOURCE_KEYS: Final = {"name", "uid", "type", "access", "url", "isDefault", "editable", "jsonData"}
JSON_DATA_KEYS: Final = {"httpMethod", "prometheusType", "timeInterval"}
PROVIDER_KEYS: Final = {
    *("name", "orgId", "folder", "folderUid", "type", "disableDeletion", "allowUiUpdates"),
    *("updateIntervalSeconds", "options"),
}


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


COMPOSE: Final = _yaml(DEPLOY / "compose.yaml")
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
# Comments go; an instruction is one line.
CONTAINERFILE: Final = [
    line
    for line in re.sub(
        r"\\\n", "", re.sub(r"^#.*\n", "", (DEPLOY / "Containerfile").read_text(), flags=re.M)
    ).splitlines()
    if line.strip()
]


def _mounts(service: str) -> dict[str, str]:
    """What is mounted, by where."""
    parts = [volume.split(":") for volume in SERVICES[service]["volumes"]]
    return {target: source for source, target, *_ in parts}


def _bound_files(service: str, target: str) -> Path:
    return (DEPLOY / _mounts(service)[target]).resolve()


def _watch_parameters() -> dict[str, Any]:
    name, *arguments = SERVICES["smtp-horizon"]["command"]
    assert name == watch.command.name
    with watch.command.make_context(name, arguments) as context:
        return context.params


def _prometheus_flags() -> dict[str, str]:
    return dict(argument.split("=", 1) for argument in SERVICES["prometheus"]["command"])


def _instructions(name: str) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in CONTAINERFILE if line.startswith(f"{name} ")]


def test_services_have_no_key_that_compose_would_refuse() -> None:
    for service in SERVICES.values():
        assert set(service) <= SERVICE_KEYS


def test_everything_mounted_from_the_repository_is_there_and_read_only() -> None:
    bound = [
        volume for service in SERVICES.values() for volume in service["volumes"] if volume.startswith(".")
    ]
    assert len(bound) == 5
    for volume in bound:
        source, _, mode = volume.split(":")
        assert (DEPLOY / source).exists(), source
        assert mode == "ro"


def test_every_named_volume_is_declared_and_every_declared_one_is_used() -> None:
    sources = [source for name in SERVICES for source in _mounts(name).values()]
    assert {source for source in sources if not source.startswith(".")} == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_images_of_others_are_pinned_to_one_version(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


@pytest.mark.parametrize("name", ["smtp-horizon", "prometheus", "grafana"])
def test_no_service_has_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert "privileged" not in service
    assert ("cap_add" in service) == (name == "smtp-horizon")
    # It would take from smtp-horizon the capabilities of its file.
    assert ("no-new-privileges:true" in service.get("security_opt", ())) == (name != "smtp-horizon")


def test_the_file_that_runs_has_the_capabilities_that_the_container_may_have() -> None:
    # One more in the file, and it could not be started; one more in the container, and nobody would have it.
    (found,) = re.findall(r"setcap (\S+)=ep ", "\n".join(_instructions("RUN")))
    given = {f"cap_{name.lower()}" for name in SERVICES["smtp-horizon"]["cap_add"]}
    assert set(found.split(",")) == given == {"cap_net_raw", "cap_bpf", "cap_perfmon"}


def test_watch_understands_its_arguments_and_writes_only_into_volumes_of_its_user() -> None:
    parameters = _watch_parameters()
    mounts = _mounts("smtp-horizon")
    written = [parameters["records"], str(parameters["simulate_state"])]
    assert {str(PurePosixPath(path).parent) for path in written} == set(mounts)
    (made,) = re.findall(r"install --directory --owner=(\S+) .*--mode=0700\s+(.*)$", _instructions("RUN")[-1])
    assert _instructions("USER") == [made[0]]
    assert set(made[1].split()) == set(mounts)


def test_nothing_is_served_to_other_machines() -> None:
    listens = [
        _watch_parameters()["listen"][0],
        _prometheus_flags()["--web.listen-address"].rpartition(":")[0],
        SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"],
    ]
    assert listens == ["127.0.0.1"] * 3
    # What is said of listening holds only where no port is published.
    assert all(service["network_mode"] == "host" for service in SERVICES.values())


def test_who_asks_whom_and_where_agree() -> None:
    host, port = _watch_parameters()["listen"]
    (scrape,) = _yaml(PROMETHEUS_YML)["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"{host}:{port}"]}]
    assert f'"http://{host}:{port}/"' in SERVICES["smtp-horizon"]["healthcheck"]["test"][-1]
    (datasource,) = _yaml(PROVISIONING / "datasources/prometheus.yaml")["datasources"]
    assert datasource["url"] == f"http://{_prometheus_flags()['--web.listen-address']}"
    assert datasource["jsonData"]["timeInterval"] == _yaml(PROMETHEUS_YML)["global"]["scrape_interval"]


def test_grafana_lets_nobody_in_without_a_password_that_was_chosen() -> None:
    environment = SERVICES["grafana"]["environment"]
    # Compose ends with the message where the variable is unset or empty.
    assert re.fullmatch(r"\$\{GRAFANA_ADMIN_PASSWORD:\?.+\}", environment["GF_SECURITY_ADMIN_PASSWORD"])
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == "false"


def test_the_datasource_is_one_that_grafana_understands() -> None:
    document = _yaml(PROVISIONING / "datasources/prometheus.yaml")
    assert set(document) == {"apiVersion", "datasources"}
    assert document["apiVersion"] == 1
    (datasource,) = document["datasources"]
    assert set(datasource) <= DATASOURCE_KEYS
    assert set(datasource["jsonData"]) <= JSON_DATA_KEYS
    assert (datasource["name"], datasource["uid"], datasource["type"]) == (
        "Prometheus",
        "prometheus",
        "prometheus",
    )


def test_the_provider_of_boards_is_one_that_grafana_understands_and_finds_them() -> None:
    document = _yaml(PROVISIONING / "dashboards/smtp-horizon.yaml")
    assert set(document) == {"apiVersion", "providers"}
    assert document["apiVersion"] == 1
    (provider,) = document["providers"]
    assert set(provider) <= PROVIDER_KEYS
    assert (provider["type"], provider["folder"]) == ("file", "smtp-horizon")
    boards = _bound_files("grafana", provider["options"]["path"])
    uids = [json.loads(path.read_text())["uid"] for path in sorted(boards.glob("*.json"))]
    assert uids
    assert len(set(uids)) == len(uids)


def test_grafana_reads_both_folders_of_provisioning_and_its_home_board_is_there() -> None:
    for kind in ("datasources", "dashboards"):
        assert _bound_files("grafana", f"/etc/grafana/provisioning/{kind}") == PROVISIONING / kind
    home = PurePosixPath(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (_bound_files("grafana", str(home.parent)) / home.name).is_file()


def test_the_image_is_made_of_what_is_in_the_repository_and_its_daemon_gets_no_more() -> None:
    build = SERVICES["smtp-horizon"]["build"]
    context = (DEPLOY / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]) == DEPLOY / "Containerfile"
    copied = {
        source.rstrip("/")
        for line in _instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    # Docker takes the ignore file by the Containerfile's name.
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_image_starts_a_command_that_there_is() -> None:
    (entry,) = _instructions("ENTRYPOINT")
    (command,) = _instructions("CMD")
    python, isolated, program = json.loads(entry)
    assert PurePosixPath(python).parent == PurePosixPath(program).parent
    assert (PurePosixPath(python).name, isolated) == ("python3", "-I")
    assert PurePosixPath(program).name == "smtp-horizon"
    (name,) = json.loads(command)
    with commands.make_context("smtp-horizon", [name]) as context:
        assert commands.get_command(context, name) is watch.command


@pytest.mark.parametrize("instruction", [line for line in CONTAINERFILE if line.startswith("RUN ")])
def test_the_shell_can_read_what_the_image_is_made_by(instruction: str) -> None:
    subprocess.run(["sh", "-n", "-c", instruction.removeprefix("RUN ")], check=True)
    for command in instruction.removeprefix("RUN ").split("&&"):
        assert shlex.split(command), "an empty command"


@pytest.mark.parametrize("document", ["deploy/README.md", "docs/grafana.md"])
def test_every_path_that_a_document_links_is_in_the_repository(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
    assert links
    for link in links:
        assert (path.parent / link).exists(), link


def test_the_document_on_grafana_names_every_board_and_no_other() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| `(.+?)` \|", (ROOT / "docs/grafana.md").read_text(), re.M)
    boards = [json.loads(path.read_text()) for path in (ROOT / "dashboards/generated/boards").glob("*.json")]
    named = {uid: f"smtp-horizon / {name}" for name, uid in rows}
    assert named == {board["uid"]: board["title"] for board in boards}


def _here(folder: Path) -> Path:
    """prometheus.yml with the paths of this machine in place of the container's, and faster."""
    text = PROMETHEUS_YML.read_text()
    (rules,) = _yaml(PROMETHEUS_YML)["rule_files"]
    inside = PurePosixPath(rules)
    here = _bound_files("prometheus", str(inside.parent)) / inside.name
    assert list(here.parent.glob(here.name))
    config = folder / "prometheus.yml"
    config.write_text(text.replace(rules, str(here)).replace("15s", "1s"))
    return config


@pytest.mark.skipif(not PROMTOOL.exists(), reason=WHERE_FROM)
def test_prometheus_accepts_the_configuration_and_its_rules(tmp_path: Path) -> None:
    checked = subprocess.run(
        [PROMTOOL, "check", "config", _here(tmp_path)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "rules found" in checked.stdout


class _Deployed(Prometheus):
    """With the arguments and the configuration of deploy/."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        flags = _prometheus_flags()
        assert _bound_files("prometheus", flags["--config.file"]) == PROMETHEUS_YML
        flags["--config.file"] = str(_here(folder))
        flags["--storage.tsdb.path"] = str(folder / "prometheus")
        command: list[str | Path] = [PROMETHEUS, *(f"{name}={value}" for name, value in flags.items())]
        Process.__init__(self, namespace, command, folder / "prometheus.log")

    def rules(self) -> list[dict[str, Any]]:
        address = _prometheus_flags()["--web.listen-address"]
        answer = json.loads(fetch(self._namespace, f"http://{address}/api/v1/rules"))
        return [rule for group in answer["data"]["groups"] for rule in group["rules"]]


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with Network() as network:
        yield network


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and capturing need root")
def test_a_real_prometheus_scrapes_a_real_watch_as_deployed_and_loads_every_rule(network: Network) -> None:
    options = [
        argument
        for argument in SERVICES["smtp-horizon"]["command"][1:]
        if not argument.startswith(("--listen", "--records", "--simulate-state"))
    ]
    server, folder = network.server, network.folder
    with Watch(server, folder, *options), _Deployed(server, folder) as prometheus:
        assert prometheus.await_value('up{job="smtp-horizon"}', 1) == 1
        assert prometheus.await_value("count(smtp_monitor_build_info)", 1) == 1
        loaded = prometheus.rules()
    files = _bound_files("prometheus", "/etc/prometheus/rules").glob("*.yml")
    written = [rule for path in files for group in _yaml(path)["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in loaded} == {rule.get("record", rule.get("alert")) for rule in written}
    assert not [rule for rule in loaded if rule.get("lastError")]
