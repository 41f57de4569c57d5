"""Debian's packages with all that they need, unpacked into a folder that can be the root of their processes.

Nothing of them is installed: the machine's own packages, users and services stay as they are, and no script
of a package runs. So a machine with one mail server can run others, and those of another release, with other
TLS libraries. What no program needs is left out.

The packages come from the mirror that this machine has Debian from.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from probes.safe_path import UnsafePathError, trusted, walked

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")).absolute() / "smtp-horizon-lab"

KEYS: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Since Debian 12 these are links, and of earlier ones nothing is there twice.
_LINKED: Final = ("bin", "sbin", "lib", "lib64")
_LEFT_OUT: Final = ("doc", "fonts", "info", "javascript", "locale", "man", "nodejs")
# Enough for programs that ask who somebody is; servers with users of their own get an /etc of their own.
_PASSWD: Final = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
_GROUP: Final = "root:x:0:\nnogroup:x:65534:\n"


class LabUnavailableError(Exception):
    """The lab can't run here; the message says why and what to do."""


def release() -> str:
    """This machine's: "bookworm"; something else where it is no Debian."""
    try:
        known = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    return known.get("VERSION_CODENAME", "unknown") if known["ID"] == "debian" else known["ID"]


def debian_root(suites: tuple[str, ...], package: str) -> Path:
    """The root of a package of the last of these suites, fetched if it is not there yet.

    Raises LabUnavailableError.
    """
    root = CACHE / suites[-1] / package
    make_roots(suites, {root: (package,)})
    return root


def make_roots(suites: tuple[str, ...], contents: Mapping[Path, tuple[str, ...]]) -> None:
    """Makes those of the roots that are not there yet, of the packages named and all that they depend on.

    The roots are folders of CACHE / suites[-1]. Each is there wholly or not at all. Packages of one root may
    conflict: of files with the same path one remains.

    Raises LabUnavailableError.
    """
    folder = CACHE / suites[-1]
    _make_own(folder)
    if not _missing(contents):
        return
    with _alone(folder), tempfile.TemporaryDirectory(prefix="unfinished-", dir=folder) as made:
        # Somebody else may have made them while we waited.
        if wanted := _missing(contents):
            apt = _Apt(Path(made), suites)
            for number, root in enumerate(wanted):
                _unpack(apt.fetch(contents[root]), unpacked := Path(made, f"root-{number}"))
                unpacked.rename(root)


def _make_own(folder: Path) -> None:
    """Makes it where it is not there yet. Raises LabUnavailableError where another user could put something
    there, or another folder in its place, as in a home that is not ours."""
    why = ""
    try:
        for part in (*reversed(folder.parents), folder):
            with walked(str(part), trusted()) as place:
                why = f"everybody may write into {part}" if place.is_shared else ""
                if place.status is None:
                    part.mkdir()
                    why = ""
    except UnsafePathError as unsafe:
        why = unsafe.why
    if why:
        raise LabUnavailableError(
            f"{why}, and what lies in {folder} would be run: set XDG_CACHE_HOME to a folder of your own"
        )


def _missing(contents: Iterable[Path]) -> list[Path]:
    return [root for root in contents if not root.exists()]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time makes roots there. What a killed one has left is removed."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob("unfinished-*"):
            shutil.rmtree(left)
        yield


class _Apt:
    """An apt that keeps all of its own in the folder, and takes nothing for installed."""

    def __init__(self, folder: Path, suites: tuple[str, ...]) -> None:
        if shutil.which("apt-get") is None:
            raise LabUnavailableError("there is no apt-get to fetch Debian's packages")
        self._folder = folder
        self._suite = suites[-1]
        own_mirror = mirror()
        own = apt_of_its_own(folder, dict.fromkeys(suites, own_mirror))
        self._options = [*own, "-o", f"APT::Default-Release={self._suite}"]
        self._run("update")

    def fetch(self, packages: Iterable[str]) -> set[Path]:
        """The files of the packages and of all that they depend on."""
        needed: set[Path] = set()
        for package in packages:  # one by one, because they may conflict
            install = ("--yes", "--no-install-recommends", "install", package)
            self._run("--download-only", *install)
            # 'http://…' name_version_architecture.deb size hash
            uris = self._run("--reinstall", "--print-uris", "-o", "Dir::Cache::Archives=/nowhere/", *install)
            names = [line.split()[1] for line in uris.splitlines() if line.startswith("'")]
            needed |= {self._folder / "archives" / name for name in names}
        return needed

    def _run(self, *arguments: str) -> str:
        finished = subprocess.run(
            ["apt-get", "-qq", *self._options, *arguments],
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode != 0:
            said = finished.stderr.strip().rpartition("\n")[2]
            raise LabUnavailableError(f"apt-get {arguments[-1]} of {self._suite} failed: {said}")
        return finished.stdout


def apt_of_its_own(folder: Path, mirrors: Mapping[str, str]) -> list[str]:
    """Options for an apt that keeps everything in the folder. `mirrors`: each suite's."""
    lines = [f"deb [signed-by={KEYS}] {where} {suite} main\n" for suite, where in mirrors.items()]
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
        "Dir::Cache::PkgCache": folder / "pkgcache.bin",
        "Dir::Cache::SrcPkgCache": folder / "srcpkgcache.bin",
        "APT::Sandbox::User": "root",  # nobody else may enter the folder
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def mirror(archive: str = "") -> str:
    """The one that this machine has its own packages from. `archive`: "-security" for that of its updates."""
    if (own := release()) == "unknown":
        raise LabUnavailableError("this is no Debian: the lab has its servers from Debian's packages")
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    command += ["Created-By: Packages", "Component: main", f"Codename: {own}{archive}"]
    known = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if not known:  # It tells only of lists that it has, and a machine fresh from an image has none.
        subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)
        known = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    mirrors = [mirror for mirror in known.split() if not mirror.startswith("cdrom:")]
    if not mirrors:
        raise LabUnavailableError(f"apt's sources name no mirror of Debian's {own}{archive}")
    return mirrors[0]


def _unpack(packages: Iterable[Path], root: Path) -> None:
    for name in _LINKED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "etc", "proc", "tmp", "var"):
        (root / name).mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in threads.map(lambda package: _extract(package, root), packages):
            pass
    (root / "etc/passwd").write_text(_PASSWD)
    (root / "etc/group").write_text(_GROUP)


def _extract(package: Path, root: Path) -> None:
    left_out = [f"--exclude=./usr/share/{name}" for name in _LEFT_OUT]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as files:
        subprocess.run(
            ["tar", "--extract", "--keep-directory-symlink", *left_out, "--directory", root],
            stdin=files.stdout,
            check=True,
        )
    if files.returncode != 0:
        raise LabUnavailableError(f"dpkg-deb could not unpack {package.name}")
