"""sendmail, from Debian's package, unpacked: one session on descriptors 0 and 1, as tcpserver runs it.

Of Debian 12's servers it is the one that does TLS there when they are pipes. Exim's GnuTLS receives from
sockets only ("Error in the pull function"), and Postfix's smtpd(8) takes connections from its master alone.
"""

import os
import socket
from pathlib import Path
from typing import Final

from tests.lab.certificates import make_certificate
from tests.lab.packages import SERVERS_ROOT
from tests.lab.server import BUSY_RECIPIENT, MAIL_DOMAIN, UNKNOWN_RECIPIENT
from tests.lab.unpacked import prepare_root

# Everything goes to a mailer that nobody runs: messages stay in the queue, which goes with the folder.
_SETTINGS: Final = """\
V10/Berkeley
Dj{name}
O QueueDirectory=/var/queue
O DeliveryMode=queueonly
O HelpFile=/dev/null
O PidFile=/dev/null
O LogLevel=0
O Timeout.ident=0
O ServerCertFile=/etc/server.pem
O ServerKeyFile=/etc/server.key
O CACertFile=/etc/server.pem
O CACertPath=/etc
O SmtpGreetingMessage=$j sendmail
H?D?Date: $b
Mlocal, P=[IPC], F=lsDFMAw5:/|@q, A=TCP $h
Mprog, P=[IPC], F=lsDFMoqeu9, A=TCP $h
Mkeep, P=[IPC], F=mnz, E=\\r\\n, A=TCP 127.0.0.1
S0
R$*\t$#keep $@ kept $: $1
Scheck_rcpt
R<{unknown}>\t$#error $@ 5.1.1 $: "550 No such user"
R<{busy}>\t$#error $@ 4.2.1 $: "450 Try later"
R$* @ {domain} $*\t$@ OK
R$* @ $*\t$#error $@ 5.7.1 $: "550 Relaying denied"
"""


def prepare_sendmail(folder: Path) -> list[str | Path]:
    """Configures it in the folder; returns the command, for use behind `unpacked.with_mounts`."""
    folder.mkdir(parents=True)
    certificate = make_certificate(folder)
    # It looks its own name up when it starts, and waits a minute for one with a dot.
    own, name = socket.gethostname().partition(".")[0], f"mx-sendmail.{MAIL_DOMAIN}"
    settings = _SETTINGS.format(name=name, domain=MAIL_DOMAIN, unknown=UNKNOWN_RECIPIENT, busy=BUSY_RECIPIENT)
    hosts = f"127.0.0.1 {name} {socket.gethostname()} {own} localhost\n"
    prepare_root(folder, (), {"sendmail.cf": settings, "hosts": hosts}, {})
    (folder / "etc/server.pem").write_text(certificate.certificate.read_text())
    (folder / "etc/server.key").write_text(certificate.key.read_text())
    os.chmod(folder / "etc/server.key", 0o600)
    (folder / "var/queue").mkdir(mode=0o700)
    return ["chroot", SERVERS_ROOT, "/usr/libexec/sendmail/sendmail", "-C/etc/sendmail.cf", "-bs"]
