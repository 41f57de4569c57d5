"""A server's certificate and key, made by the openssl program, good for a few days."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SERVER_NAME: Final = "mx.example.test"


@dataclass(frozen=True, slots=True)
class Certificate:
    certificate: Path
    key: Path


def make_certificate(folder: Path, name: str = "server") -> Certificate:
    """A self-signed certificate for `SERVER_NAME`: `name`.pem and `name`.key in the folder."""
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "3",
            ),
            *("-subj", f"/CN={SERVER_NAME}", "-addext", f"subjectAltName=DNS:{SERVER_NAME}"),
            *("-keyout", made.key, "-out", made.certificate),
        ],
        check=True,
        capture_output=True,
    )
    return made
