"""chasquid, from Debian's package, unpacked: a mail server written in Go, whose TLS is Go's own."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.lab.certificates import SERVER_NAME, make_certificate
from tests.lab.network import Namespace, server_address
from tests.lab.packages import SERVERS_ROOT
from tests.lab.server import MAIL_DOMAIN
from tests.lab.unpacked import launch_unpacked, prepare_root

ADDRESS: Final = server_address(41)

# It wants the addresses for submission, from 1.15 on: on ports that nobody watches.
_SETTINGS: Final = """\
hostname: "{server_name}"
smtp_address: "{address}:25"
submission_address: "127.0.0.1:2587"
submission_over_tls_address: "127.0.0.1:2465"
mail_delivery_agent_bin: "/bin/true"
data_dir: "/var/lib/chasquid"
mail_log_path: "/var/log/chasquid.log"
"""


@contextmanager
def chasquid(namespace: Namespace, folder: Path, address: str = ADDRESS) -> Iterator[int]:
    """The number of its process, which listens on port 25 of that address."""
    settings = _SETTINGS.format(server_name=SERVER_NAME, address=address)
    prepare_root(folder, (), {"chasquid/chasquid.conf": settings}, {})
    for name in ("lib/chasquid", "log"):
        (folder / "var" / name).mkdir(parents=True)
    configuration = folder / "etc/chasquid"
    certificate = make_certificate(folder)
    certificates = configuration / "certs" / SERVER_NAME
    certificates.mkdir(parents=True)
    shutil.copy(certificate.certificate, certificates / "fullchain.pem")
    shutil.copy(certificate.key, certificates / "privkey.pem")
    (configuration / "domains" / MAIL_DOMAIN).mkdir(parents=True)
    with launch_unpacked(namespace, folder, ["/usr/bin/chasquid"], SERVERS_ROOT) as process:
        try:
            namespace.await_listeners({(address, 25)})
            yield process.pid
        finally:
            process.kill()
