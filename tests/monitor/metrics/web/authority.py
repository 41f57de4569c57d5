"""A certificate authority of the openssl program: what a test wants signed, and what nobody signed."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.certificates import Certificate

_EC: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3")


@dataclass(frozen=True, slots=True)
class Authority:
    folder: Path
    own: Certificate

    def issue(self, name: str, alternative_names: str, usage: str) -> Certificate:
        """`alternative_names` as openssl has them: `DNS:localhost,IP:127.0.0.1`; `usage`: serverAuth or
        clientAuth."""
        made = Certificate(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        _openssl(
            *("req", "-x509", *_EC, "-CA", self.own.certificate, "-CAkey", self.own.key),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative_names}"),
            *("-addext", f"extendedKeyUsage={usage}", "-addext", "basicConstraints=critical,CA:FALSE"),
            *("-keyout", made.key, "-out", made.certificate),
        )
        return made


def make_authority(folder: Path, name: str = "authority") -> Authority:
    own = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    _openssl(
        # Python 3.13 verifies by RFC 5280 to the letter: an authority has to say that its key may sign.
        *("req", "-x509", *_EC, "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", own.key, "-out", own.certificate),
    )
    return Authority(folder, own)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
