"""OpenSMTPD, from Debian's package, unpacked.

With Debian 12's OpenSSL its every TLS handshake fails ("missing private key"), so it is a witness of clear
sessions and of failed handshakes. Those of other releases do TLS.
"""

import subprocess
from pathlib import Path
from typing import Final

from tests.lab.certificates import make_certificate
from tests.lab.network import Namespace, server_address
from tests.lab.opensmtpd_log import read_opensmtpd_log
from tests.lab.packages import SERVERS_ROOT
from tests.lab.sasl import PASSWORD, USER
from tests.lab.server import MAIL_DOMAIN, MailServer
from tests.lab.truth import SessionTruth
from tests.lab.unpacked import launch_unpacked, prepare_root

NUMBER: Final = 22
_PROGRAM: Final = "/usr/sbin/smtpd"
_USERS: Final = ("opensmtpd", "opensmtpq")
_CHROOT: Final = "/var/lib/opensmtpd/empty"

# Messages are relayed to where nobody listens: they stay in the queue, which goes with the folder.
_SETTINGS: Final = """\
pki lab cert "/etc/server.pem"
pki lab key "/etc/server.key"
listen on {ipv4} port 25 tls pki lab hostname mx-opensmtpd.{domain}
listen on {ipv6} port 25 tls pki lab hostname mx-opensmtpd.{domain}
action "keep" relay host smtp://127.0.0.1:9
match from any for domain "{domain}" rcpt-to regex {{ "^user[0-9]+@", "^10[.]" }} action "keep"
"""
_SUBMISSION: Final = """\
table users file:/etc/users
listen on {ipv4} port 465 smtps pki lab auth-optional <users> hostname mx-opensmtpd.{domain}
listen on {ipv4} port 587 tls-require pki lab auth <users> hostname mx-opensmtpd.{domain}
"""


class OpenSmtpd(MailServer):
    """The server. It knows user1, user2, ... and whoever is called like an address; it refuses others."""

    name = "opensmtpd"
    root = SERVERS_ROOT
    settings = _SETTINGS

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        super().__init__(namespace, folder)
        self.log = folder / "log"
        self.listeners = frozenset((server_address(NUMBER, family), 25) for family in (4, 6))

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = self.settings.format(
            domain=MAIL_DOMAIN, ipv4=server_address(NUMBER), ipv6=server_address(NUMBER, 6)
        )
        certificate = make_certificate(self.folder)
        prepare_root(
            self.folder,
            _USERS,
            {
                "smtpd.conf": settings,
                "mailname": f"mx-opensmtpd.{MAIL_DOMAIN}\n",
                # Newer ones don't start without, though they ask nobody for a certificate.
                "ssl/certs/ca-certificates.crt": certificate.certificate.read_text(),
                "users": f"{USER} {hashed(PASSWORD)}\n",
            },
            dict.fromkeys(_USERS, _CHROOT),
        )
        etc, var = self.folder / "etc", self.folder / "var"
        (etc / "server.pem").write_text(certificate.certificate.read_text())
        (etc / "server.key").write_text(certificate.key.read_text())
        (etc / "server.key").chmod(0o600)
        for name in ("run", "lib/opensmtpd/empty", "spool/smtpd", "mail"):
            (var / name).mkdir(parents=True)
        (var / "spool/smtpd").chmod(0o711)
        with self.log.open("wb") as log:
            return launch_unpacked(self.namespace, self.folder, [_PROGRAM, "-d"], self.root, output=log)

    def sessions(self) -> list[SessionTruth]:
        return read_opensmtpd_log(
            self.said(),
            ((server_address(NUMBER), 25), (server_address(NUMBER, 6), 25)),
        )


class OpenSmtpdWithTls(OpenSmtpd):
    """One of another release, in a root of its own; on the ports for submission, too.

    Its log is read for clear sessions alone.
    """

    settings = _SETTINGS.replace("action", _SUBMISSION + "action", 1)

    def __init__(self, namespace: Namespace, folder: Path, root: Path) -> None:
        super().__init__(namespace, folder)
        self.root = root
        self.listeners |= {(server_address(NUMBER), port) for port in (465, 587)}


def hashed(password: str) -> str:
    """As crypt(3) does it, by SHA-512."""
    made = subprocess.run(["openssl", "passwd", "-6", password], capture_output=True, text=True, check=True)
    return made.stdout.strip()
