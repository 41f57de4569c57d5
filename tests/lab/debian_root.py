"""A package of another release of Debian with all that it needs, in a folder that can be the root of its
processes: so there is a mail server with another TLS library.

It comes from the mirror that this machine has Debian from. Mirrors let go of old releases some day, so nobody
but who asks for such a root needs it.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.lab.packages import CACHE, LabUnavailableError, apt

_KEYS: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Since Debian 12 these are links, and of earlier ones nothing is there twice.
_LINKED: Final = ("bin", "sbin", "lib", "lib64")


def debian_root(suites: tuple[str, ...], package: str) -> Path:
    """The root, fetched if it is not there yet; the package is the last suite's.

    Raises LabUnavailableError.
    """
    root = CACHE / suites[-1] / package
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent) as folder:
            packages = _fetched(Path(folder), suites, package)
            unpacked = Path(folder, "root")
            _unpack(packages, unpacked)
            unpacked.rename(root)
    return root


def _fetched(folder: Path, suites: tuple[str, ...], package: str) -> Iterable[Path]:
    """By an apt that keeps all of its own in the folder, and takes nothing for installed."""
    mirror = _mirror()
    lines = [f"deb [signed-by={_KEYS}] {mirror} {suite} main\n" for suite in suites]
    (folder / "sources.list").write_text("".join(lines))
    (folder / "status").touch()
    (folder / "lists").mkdir()
    (folder / "archives/partial").mkdir(parents=True)
    settings = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::State::Status": folder / "status",
        "Dir::Cache::Archives": folder / "archives",
        "Dir::Cache::PkgCache": "",
        "Dir::Cache::SrcPkgCache": "",
        "APT::Sandbox::User": "root",  # nobody else may enter the folder
        "APT::Default-Release": suites[-1],
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    fetch = ("install", "--yes", "--no-install-recommends", "--download-only", package)
    if not (apt(*options, "update") and apt(*options, *fetch)):
        raise LabUnavailableError(f"apt-get could not download {package} of {suites[-1]}")
    return (folder / "archives").glob("*.deb")


def _mirror() -> str:
    asked = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Codename: bookworm",
    ]
    if shutil.which(asked[0]) is None:
        raise LabUnavailableError("there is no apt-get to fetch another Debian")
    mirrors = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    if not mirrors:
        raise LabUnavailableError("apt knows no mirror of Debian 12")
    return mirrors[0]


def _unpack(packages: Iterable[Path], root: Path) -> None:
    for name in _LINKED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "proc", "tmp"):
        (root / name).mkdir()
    for package in packages:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as files:
            subprocess.run(
                ["tar", "--extract", "--keep-directory-symlink", "--directory", root],
                stdin=files.stdout,
                check=True,
            )
