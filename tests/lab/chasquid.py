"""chasquid, from Debian's package, unpacked: a mail server written in Go, whose TLS is Go's own."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.lab.certificates import SERVER_NAME, make_certificate
from tests.lab.network import Namespace, server_address
from tests.lab.packages import CHASQUID, UNPACKED
from tests.lab.server import MAIL_DOMAIN

ADDRESS: Final = server_address(41)

_SETTINGS: Final = """\
hostname: "{server_name}"
smtp_address: "{address}:25"
submission_address: ""
submission_over_tls_address: ""
mail_delivery_agent_bin: "/bin/true"
data_dir: "{folder}/data"
mail_log_path: "{folder}/mail.log"
"""


@contextmanager
def chasquid(namespace: Namespace, folder: Path, address: str = ADDRESS) -> Iterator[int]:
    """The number of its process, which listens on port 25 of that address."""
    certificate = make_certificate(folder)
    certificates = folder / "certs" / SERVER_NAME
    certificates.mkdir(parents=True)
    shutil.copy(certificate.certificate, certificates / "fullchain.pem")
    shutil.copy(certificate.key, certificates / "privkey.pem")
    (folder / "domains" / MAIL_DOMAIN).mkdir(parents=True)
    settings = _SETTINGS.format(server_name=SERVER_NAME, address=address, folder=folder)
    (folder / "chasquid.conf").write_text(settings)
    with namespace.start([UNPACKED[CHASQUID], "-config_dir", folder]) as process:
        try:
            namespace.await_listeners({(address, 25)})
            yield process.pid
        finally:
            process.kill()
