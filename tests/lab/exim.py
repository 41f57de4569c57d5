"""Exim (GnuTLS), from Debian's package, unpacked: as a server, and as a client that relays what it is given.

Its client offers what Postfix's does not: BDAT, and a retry in clear after a failed TLS handshake.
"""

import subprocess
from pathlib import Path
from typing import Final

from tests.lab.certificates import make_certificate
from tests.lab.exim_log import read_exim_log
from tests.lab.network import Namespace, server_address
from tests.lab.packages import SERVERS_ROOT
from tests.lab.sasl import PASSWORD, USER
from tests.lab.server import BUSY_RECIPIENT, MAIL_DOMAIN, UNKNOWN_RECIPIENT, MailServer
from tests.lab.truth import SessionTruth
from tests.lab.unpacked import launch_unpacked, prepare_root, run_unpacked

PROGRAM: Final = "/usr/sbin/exim4"
NUMBER: Final = 21
_USER: Final = "Debian-exim"

_COMMON_SETTINGS: Final = """\
exim_path = {program}
spool_directory = /var/spool
log_file_path = /var/log/%slog
log_selector = +incoming_port +incoming_interface +outgoing_interface +outgoing_port +smtp_connection \\
 +received_recipients +received_sender +smtp_no_mail +smtp_incomplete_transaction +tls_cipher +tls_sni +pid
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 0
message_logs = false
keep_environment =
"""

_SERVER_SETTINGS: Final = """\
primary_hostname = mx-exim.{domain}
local_interfaces = <; {ipv4} ; {ipv6}
daemon_smtp_ports = 25 : 465
tls_on_connect_ports = 465
queue_only = true
tls_advertise_hosts = *
tls_resumption_hosts = *
tls_certificate = /etc/server.pem
tls_privatekey = /etc/server.key
auth_advertise_hosts = *
chunking_advertise_hosts = *
pipelining_advertise_hosts = *
acl_smtp_rcpt = check_recipient
acl_smtp_data = accept
begin acl
check_recipient:
  deny recipients = {unknown}
  defer recipients = {busy}
  accept domains = {domain}
  deny
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and {{ {{eq{{$auth2}}{{{user}}}}} {{eq{{$auth3}}{{{password}}}}} }}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and {{ {{eq{{$auth1}}{{{user}}}}} {{eq{{$auth2}}{{{password}}}}} }}}}
  server_set_id = $auth1
"""

# The recipient's local part names the server to deliver to and how: 10.77.0.1, or 10.77.0.1-clear.
_CLIENT_SETTINGS: Final = """\
primary_hostname = relay-exim.client.test
local_interfaces = 127.0.0.1
acl_not_smtp = accept
trusted_users = root
begin routers
in_clear:
  driver = manualroute
  local_part_suffix = -clear
  transport = in_clear
  route_data = $local_part
opportunistic:
  driver = manualroute
  transport = opportunistic
  route_data = $local_part
begin transports
in_clear:
  driver = smtp
  hosts_avoid_tls = *
  hosts_try_chunking = *
opportunistic:
  driver = smtp
  hosts_try_chunking = *
  tls_tempfail_tryclear = true
begin retry
* * F,1h,1s
"""


class Exim(MailServer):
    """The server. `root`: with one of another release."""

    name = "exim"

    def __init__(self, namespace: Namespace, folder: Path, root: Path = SERVERS_ROOT) -> None:
        super().__init__(namespace, folder)
        self._root = root
        self.log = folder / "var/log/mainlog"
        self.listeners = frozenset(
            (server_address(NUMBER, family), port) for family in (4, 6) for port in (25, 465)
        )

    def _launch(self) -> subprocess.Popen[bytes]:
        if not self.log.parent.exists():  # else it was stopped, and is started again
            self._configure()
        return launch_unpacked(self.namespace, self.folder, [PROGRAM, "-bdf"], self._root)

    def _configure(self) -> None:
        settings = _SERVER_SETTINGS.format(
            domain=MAIL_DOMAIN,
            ipv4=server_address(NUMBER),
            ipv6=server_address(NUMBER, 6),
            unknown=UNKNOWN_RECIPIENT,
            busy=BUSY_RECIPIENT,
            user=USER,
            password=PASSWORD,
        )
        certificate = make_certificate(self.folder)
        _prepare(self.folder, settings)
        (self.folder / "etc/server.pem").write_text(certificate.certificate.read_text())
        (self.folder / "etc/server.key").write_text(certificate.key.read_text())

    def sessions(self) -> list[SessionTruth]:
        return read_exim_log(self.said())


class EximClient:
    """Delivers messages over SMTP, each in a session of its own; returns when it has tried."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self.namespace = namespace
        self.folder = folder
        self.log = folder / "var/log/mainlog"
        _prepare(folder, _CLIENT_SETTINGS)

    def deliver(self, server: str, message: str, *, sender: str, in_clear: bool = False) -> None:
        """To the server with that IPv4 address; in clear, or with TLS where the server offers it."""
        recipient = f"{server}{'-clear' if in_clear else ''}@{MAIL_DOMAIN}"
        run_unpacked(
            self.namespace,
            self.folder,
            [PROGRAM, "-bm", "-odf", "-f", sender, recipient],
            SERVERS_ROOT,
            given=message,
        )


def _prepare(folder: Path, settings: str) -> None:
    configuration = _COMMON_SETTINGS.format(program=PROGRAM) + settings
    prepare_root(folder, [_USER], {"exim4/exim4.conf": configuration}, {})
    for name in ("spool", "log"):
        (folder / "var" / name).mkdir()
        (folder / "var" / name).chmod(0o777)
