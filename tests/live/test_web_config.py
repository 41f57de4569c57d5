"""A real Prometheus scrapes a real watch over TLS, with a password and a client certificate, as the two are
configured by files of the same names that node_exporter and its Prometheus have."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import pytest

from tests.lab.network import Namespace, Network
from tests.lab.prometheus import PROMETHEUS, WHERE_FROM, Prometheus
from tests.lab.watch import LISTEN, PROGRAM, Process
from tests.monitor.metrics.web.authority import make_authority

pytestmark = [
    pytest.mark.live,
    pytest.mark.thorough,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and capturing need root"),
    pytest.mark.skipif(not PROMETHEUS.exists(), reason=WHERE_FROM),
]

_WEB_CONFIG = """\
tls_server_config:
  cert_file: server.pem
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: authority.pem
  client_allowed_sans: [prometheus.example]
basic_auth_users:
  prometheus: {hashed}
"""
_SCRAPE = """\
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: smtp-horizon
    scheme: https
    tls_config:
      ca_file: {folder}/authority.pem
      cert_file: {folder}/{client}.pem
      key_file: {folder}/{client}.key
    basic_auth: {{username: prometheus, password: {password}}}
    static_configs: [{{targets: ["{host}:{port}"]}}]
"""


class _Watch(Process):
    def __init__(self, namespace: Namespace, folder: Path) -> None:
        listen = f"{LISTEN[0]}:{LISTEN[1]}"
        options = ("--interface", "lo", "--listen", listen, "--web-config", folder / "web.yml")
        super().__init__(namespace, [PROGRAM, "watch", *options], folder / "watch.log")

    def __enter__(self) -> "_Watch":
        super().__enter__()
        self._await("metrics are at https://")
        return self

    def hang_up(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)


class _Scraper(Prometheus):
    def __init__(self, namespace: Namespace, folder: Path) -> None:
        super().__init__(namespace, folder)
        self._file = folder / "prometheus.yml"
        self._folder = folder
        self.configure("right", "client")

    def configure(self, password: str, client: str) -> None:
        self._file.write_text(
            _SCRAPE.format(
                folder=self._folder, password=password, client=client, host=LISTEN[0], port=LISTEN[1]
            )
        )
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = make_authority(tmp_path)
    authority.issue("server", "IP:127.0.0.1", "serverAuth")
    authority.issue("client", "DNS:prometheus.example", "clientAuth")
    authority.issue("other", "DNS:other.example", "clientAuth")
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(10)).decode()
    (tmp_path / "web.yml").write_text(_WEB_CONFIG.format(hashed=hashed))
    return tmp_path


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


def test_prometheus_scrapes_with_certificate_and_password_and_not_without(
    network: Network, folder: Path
) -> None:
    with _Watch(network.server, folder) as watch, _Scraper(network.server, folder) as prometheus:
        assert prometheus.await_value("up", 1) == 1
        assert prometheus.await_value("smtp_monitor_capture_up", 1) == 1
        for password, client in (("wrong", "client"), ("right", "other")):
            prometheus.configure(password, client)
            assert prometheus.await_value("up", 0) == 0
            prometheus.configure("right", "client")
            assert prometheus.await_value("up", 1) == 1
        assert watch.stop() == 0


def test_a_broken_new_file_keeps_the_old_and_a_good_one_is_taken(network: Network, folder: Path) -> None:
    with _Watch(network.server, folder) as watch, _Scraper(network.server, folder) as prometheus:
        assert prometheus.await_value("up", 1) == 1
        (folder / "server.key").write_text("no key\n")
        watch.hang_up()
        _until(lambda: "going on with what was read before" in watch.said())
        (said,) = [line for line in watch.said().splitlines() if "going on" in line]
        assert "tls_server_config: certificate and key can't be used" in said
        scraped = prometheus.query("count_over_time(up[1m])")
        _until(lambda: prometheus.query("count_over_time(up[1m])") != scraped)
        assert prometheus.query("up") == 1
        make_authority(folder, "authority").issue("server", "IP:127.0.0.1", "serverAuth")
        watch.hang_up()
        _until(lambda: "web configuration read anew" in watch.said())
        # Of the new authority it has no certificate, and Prometheus still shows that of the old.
        assert prometheus.await_value("up", 0) == 0
        assert watch.stop() == 0


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
