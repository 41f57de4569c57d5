"""OpenSMTPD from Debian 12's backports, unpacked: the one for Debian 12 whose TLS works.

It comes from the mirror that this machine has Debian from, by an apt that knows nothing but backports.
Mirrors let go of these some day, so nobody but who asks for it needs it.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.lab.packages import CACHE, LabUnavailableError, apt, unpack

_SUITE: Final = "bookworm-backports"
_FOLDER: Final = CACHE / _SUITE / "opensmtpd"
_KEYS: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
OPENSMTPD_WITH_TLS: Final = _FOLDER / "usr/sbin/smtpd"


def ensure_backport() -> None:
    """Fetches it, if it is missing; raises LabUnavailableError."""
    if OPENSMTPD_WITH_TLS.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        options = _knowing_backports_alone(Path(folder))
        if not (apt(*options, "update") and unpack(_FOLDER, *options)):
            raise LabUnavailableError(f"apt-get could not download opensmtpd of {_SUITE}")


def _knowing_backports_alone(folder: Path) -> list[str]:
    """Options that make an apt of it, with that folder for what it keeps."""
    sources, lists = folder / "sources.list", folder / "lists"
    lists.mkdir()
    sources.write_text(f"deb [signed-by={_KEYS}] {_mirror()} {_SUITE} main\n")
    settings = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": lists,
        "Dir::Cache::PkgCache": "",
        "Dir::Cache::SrcPkgCache": "",
        "APT::Sandbox::User": "root",  # who else may not enter the folder
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _mirror() -> str:
    asked = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Codename: bookworm",
    ]
    try:
        mirrors = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise LabUnavailableError(str(error)) from error
    if not mirrors:
        raise LabUnavailableError("apt knows no mirror of Debian 12")
    return mirrors[0]
