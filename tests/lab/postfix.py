"""Postfix, from Debian's package, unpacked: the machine needs none, and one that it has is not touched.

One master process shows many faces, each on an address of its own; `-o` overrides in master.cf make them
differ. Its smtp(8) client relays what it is given on the loopback interface: see `postfix_client.py`.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.certificates import SERVER_NAME, make_certificate
from tests.lab.network import Namespace, server_address
from tests.lab.packages import POSTFIX_ROOT
from tests.lab.postfix_log import read_postfix_log
from tests.lab.sasl import PasswordServer
from tests.lab.server import BUSY_RECIPIENT, MAIL_DOMAIN, UNKNOWN_RECIPIENT, MailServer
from tests.lab.truth import Endpoint, SessionTruth
from tests.lab.unpacked import launch_unpacked, prepare_root

CONFIGURATION: Final = "etc/postfix"
LOG: Final = "var/log/mail.log"
_OWNER: Final = "postfix"
_DROPPING_GROUP: Final = "postdrop"
_PASSWORDS: Final = "var/passwords"


@dataclass(frozen=True, slots=True)
class Face:
    """One service of master.cf: where it listens and what it does differently."""

    name: str
    number: int
    """Of its address: 10.77.0.`number` and fd77::`number`."""
    port: int
    options: tuple[str, ...] = ()

    @property
    def listeners(self) -> tuple[Endpoint, Endpoint]:
        return (server_address(self.number), self.port), (server_address(self.number, 6), self.port)


_SASL: Final = ("smtpd_sasl_auth_enable=yes",)

MX: Final = Face("mx", 1, 25)
SUBMISSION: Final = Face("submission", 1, 587, ("smtpd_tls_security_level=encrypt", *_SASL))
SMTPS: Final = Face("smtps", 1, 465, ("smtpd_tls_wrappermode=yes", *_SASL))
NO_TLS_FACE: Final = Face("notls", 2, 25, ("smtpd_tls_security_level=none",))
# A key that doesn't belong to the certificate gives the real 454; a missing file would give 220 and then a
# failed handshake.
BROKEN_KEY: Final = Face("brokenkey", 3, 25, ("smtpd_tls_chain_files=$config_directory/mismatch.pem",))
CLEAR_AUTH: Final = Face("clearauth", 4, 25, (*_SASL, "smtpd_tls_auth_only=no"))
PROXIED: Final = Face("proxied", 5, 25, ("smtpd_upstream_proxy_protocol=haproxy",))
IMPATIENT: Final = Face(
    "impatient", 6, 25, ("smtpd_timeout=2s", "smtpd_starttls_timeout=2s", "smtpd_hard_error_limit=3")
)
FACES: Final = (MX, SUBMISSION, SMTPS, NO_TLS_FACE, BROKEN_KEY, CLEAR_AUTH, PROXIED, IMPATIENT)

# Everything unchrooted: a chroot would need a copy of the resolver's and OpenSSL's files.
_INTERNAL_SERVICES: Final = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

_COMMON_SETTINGS: Final = """\
compatibility_level = 3.6
enable_long_queue_ids = yes
maillog_file = /{log}
alias_maps =
mydestination =
local_recipient_maps =
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
inet_protocols = all
"""

_SERVER_SETTINGS: Final = """\
myhostname = {server_name}
mynetworks = 127.0.0.0/8
virtual_mailbox_domains = {domain}
virtual_transport = discard:
smtpd_client_port_logging = yes
smtpd_tls_loglevel = 1
smtpd_tls_security_level = may
smtpd_tls_chain_files = $config_directory/chain.pem
tls_server_sni_maps =
smtpd_sasl_type = dovecot
smtpd_sasl_path = /{passwords}
smtpd_recipient_restrictions =
 check_recipient_access inline:{{ {{{unknown} = 550 5.1.1 No such user}} {{{busy} = 450 4.2.0 Try later}} }},
 permit_sasl_authenticated, reject_unauth_destination
smtpd_relay_restrictions =
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_error_sleep_time = 0
default_process_limit = 40
"""


class Postfix(MailServer):
    """The server, with all its faces or some of them."""

    name = "postfix"

    def __init__(self, namespace: Namespace, folder: Path, faces: tuple[Face, ...] = FACES) -> None:
        super().__init__(namespace, folder)
        self.log = folder / LOG
        self.faces = faces
        self.listeners = frozenset(listener for face in faces for listener in face.listeners)
        self._passwords: PasswordServer | None = None

    def _launch(self) -> subprocess.Popen[bytes]:
        if not (self.folder / CONFIGURATION).exists():  # else it was stopped, and is started again
            self._configure()
        self._passwords = PasswordServer(self.folder / _PASSWORDS).__enter__()
        return launch_postfix(self.namespace, self.folder)

    def _configure(self) -> None:
        own, other = make_certificate(self.folder), make_certificate(self.folder, "other")
        services = "".join(_service(face, listener) for face in self.faces for listener in face.listeners)
        configuration = prepare_postfix(
            self.folder,
            _SERVER_SETTINGS.format(
                server_name=SERVER_NAME,
                domain=MAIL_DOMAIN,
                passwords=_PASSWORDS,
                unknown=UNKNOWN_RECIPIENT,
                busy=BUSY_RECIPIENT,
            ),
            services,
        )
        (configuration / "chain.pem").write_text(own.key.read_text() + own.certificate.read_text())
        (configuration / "mismatch.pem").write_text(other.key.read_text() + own.certificate.read_text())

    def stop(self) -> None:
        super().stop()
        if self._passwords is not None:
            self._passwords.__exit__(None, None, None)
            self._passwords = None

    def sessions(self) -> list[SessionTruth]:
        listeners = {face.name: face.listeners for face in self.faces}
        return read_postfix_log(self.said(), listeners)


def prepare_postfix(folder: Path, settings: str, services: str) -> Path:
    """Makes the folders and files of a Postfix instance; returns its configuration folder."""
    numbers = prepare_root(
        folder,
        (_OWNER, _DROPPING_GROUP),
        {
            "postfix/main.cf": _COMMON_SETTINGS.format(log=LOG) + settings,
            "postfix/master.cf": services + _INTERNAL_SERVICES,
            "postfix/dynamicmaps.cf": "",
        },
        {},
    )
    owner, dropping_group = numbers[_OWNER], numbers[_DROPPING_GROUP]
    (folder / LOG).parent.mkdir()
    _make_folder(folder / "var/lib/postfix", 0o700, owner, owner)
    queue = folder / "var/spool/postfix"
    _make_folder(queue, 0o755, 0, 0)
    for name in (
        *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private"),
        *("saved", "trace"),
    ):
        _make_folder(queue / name, 0o700, owner, 0)
    _make_folder(queue / "pid", 0o755, 0, 0)
    _make_folder(queue / "public", 0o710, owner, dropping_group)
    _make_folder(queue / "maildrop", 0o730, owner, dropping_group)
    return folder / CONFIGURATION


def launch_postfix(namespace: Namespace, folder: Path) -> subprocess.Popen[bytes]:
    return launch_unpacked(namespace, folder, ["/usr/lib/postfix/sbin/master", "-d"], POSTFIX_ROOT)


def program(name: str) -> list[str | Path]:
    """The first words of a command that runs smtp-source(1) or smtp-sink(1), which need no files."""
    return ["chroot", POSTFIX_ROOT, f"/usr/sbin/{name}"]


def _service(face: Face, listener: Endpoint) -> str:
    host, port = listener
    options = "".join(f" -o {option}" for option in (f"syslog_name=postfix/{face.name}", *face.options))
    address = f"[{host}]" if ":" in host else host
    return f"{address}:{port} inet n - n - - smtpd{options}\n"


def _make_folder(folder: Path, mode: int, user: int, group: int) -> None:
    folder.mkdir(parents=True)
    os.chown(folder, user, group)
    folder.chmod(mode)
