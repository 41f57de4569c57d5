"""Debian's kernels, fetched from its releases into a cache: nothing is installed.

apt gets folders of its own for everything, so that neither this machine's lists nor its packages know of
it. A kernel comes into the cache by one renaming, when it is whole."""

import lzma
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard

from tests.lab.packages import CACHE, apt

KEYS: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ARCHITECTURE: Final = "amd64"
_META_PACKAGE: Final = f"linux-image-{ARCHITECTURE}"
_ARCHIVE: Final = "http://mirror.test/debian"
_FRESH_SECONDS: Final = 7 * 24 * 3600.0
"""How old a kernel in the cache may be before its release is asked for a newer one: security updates of a
kernel come every few weeks."""


class KernelUnavailableError(Exception):
    """It can't be fetched; the message says why."""


@dataclass(frozen=True, slots=True)
class Release:
    """One of Debian's, and what its kernel is called."""

    suite: str
    series: str
    is_required: bool = False
    """The one that README names first: without it nothing is proved."""


RELEASES: Final = (
    Release("bullseye", "5.10"),
    Release("bookworm", "6.1", is_required=True),
    Release("trixie", "6.12"),
)


@dataclass(frozen=True, slots=True)
class Kernel:
    folder: Path

    @property
    def release(self) -> str:
        """As `uname -r` says there."""
        return self.image.name.removeprefix("vmlinuz-")

    @property
    def image(self) -> Path:
        (image,) = (self.folder / "boot").glob("vmlinuz-*")
        return image

    @property
    def version(self) -> str:
        """Of the package."""
        return (self.folder / "package-version").read_text().strip()

    def modules(self, names: list[str]) -> list[tuple[Path, bytes]]:
        """The modules' files, unpacked, each after those that it needs. Built-in ones are left out."""
        (folder,) = [
            folder
            for root in ("lib", "usr/lib")
            if (folder := self.folder / root / "modules" / self.release).is_dir()
        ]
        files = {_module_name(file): file for file in folder.rglob("*.ko*")}
        built_in = {_module_name(Path(line)) for line in (folder / "modules.builtin").read_text().split()}
        ordered: dict[Path, bytes] = {}

        def add(name: str) -> None:
            if name in built_in:
                return
            file = files[name]
            content = _unpacked(file)
            for needed in _needs(content):
                add(needed)
            ordered.setdefault(file, content)

        for name in names:
            add(name)
        return list(ordered.items())


def fetched(release: Release) -> Kernel:
    """That release's kernel, as new as a week ago or newer. Raises KernelUnavailableError."""
    parent = CACHE / "kernels"
    kernel = Kernel(parent / release.suite)
    try:
        if time.time() - (kernel.folder / "package-version").stat().st_mtime < _FRESH_SECONDS:
            return kernel
        is_there = True
    except FileNotFoundError:
        is_there = False
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            _fetch(release, Path(folder), kernel.folder)
    except KernelUnavailableError:
        if not is_there:
            raise
    return kernel


def _fetch(release: Release, folder: Path, wanted: Path) -> None:
    if shutil.which("apt-get") is None:
        raise KernelUnavailableError("there is no apt-get to fetch Debian's kernels with")
    if not KEYS.exists():
        raise KernelUnavailableError(f"{KEYS} is missing: apt-get install debian-archive-keyring")
    options = _own_apt(release, folder)
    if not apt(*options, "update"):
        raise KernelUnavailableError(f"apt-get could not ask for the packages of {release.suite}")
    package = _image_package(options)
    downloads = folder / "downloads"
    downloads.mkdir()
    if not apt(*options, "download", package, folder=str(downloads)):
        raise KernelUnavailableError(f"apt-get could not download {package} of {release.suite}")
    (file,) = downloads.glob("*.deb")
    unpacked = folder / "kernel"
    subprocess.run(["dpkg", "--extract", file, unpacked], check=True)
    version = subprocess.run(
        ["dpkg-deb", "--field", file, "Version"], capture_output=True, text=True, check=True
    ).stdout
    (unpacked / "package-version").write_text(version)
    if wanted.exists():
        wanted.rename(folder / "old")
    unpacked.rename(wanted)


def _own_apt(release: Release, folder: Path) -> list[str]:
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "archives/partial").mkdir(parents=True)
    (folder / "status").touch()
    sources = folder / "sources.list"
    sources.write_text(
        "".join(
            f"deb [signed-by={KEYS} arch={ARCHITECTURE}] {_mirror(suite)} {suite} main\n"
            for suite in (release.suite, f"{release.suite}-security")
        )
    )
    settings = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::State::Status": folder / "status",
        "Dir::Cache::Archives": folder / "archives",
        "Dir::Cache::PkgCache": "",
        "Dir::Cache::SrcPkgCache": "",
        "APT::Architecture": ARCHITECTURE,
        "APT::Architectures": ARCHITECTURE,
        "APT::Sandbox::User": "root",  # nobody else may enter the folder
        "Acquire::Languages": "none",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _mirror(suite: str) -> str:
    """The one that this machine has its own Debian from, or else the archive of everybody."""
    is_security = suite.endswith("-security")
    own = _own_codename() + ("-security" if is_security else "")
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {own}"]
    mirrors = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return mirrors[0] if mirrors else _ARCHIVE + ("-security" if is_security else "")


def _own_codename() -> str:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME=")), "")


def _image_package(options: list[str]) -> str:
    """The package that the release's kernel is in now."""
    shown = subprocess.run(
        ["apt-cache", *options, "depends", "--important", _META_PACKAGE],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in shown.stdout.splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind == "Depends" and name.startswith("linux-image-"):
            return name
    raise KernelUnavailableError(f"apt knows no {_META_PACKAGE}")


def _module_name(file: Path) -> str:
    return file.name.partition(".ko")[0].replace("-", "_")


def _unpacked(file: Path) -> bytes:
    if file.suffix == ".ko":
        return file.read_bytes()
    packed = file.read_bytes()
    if file.suffix == ".xz":
        return lzma.decompress(packed)
    with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
        return reader.read()


def _needs(module: bytes) -> list[str]:
    """Names of the modules that it can't be loaded without (its .modinfo)."""
    start = module.find(b"\0depends=")
    if start < 0:
        return []
    value = module[start + len(b"\0depends=") :].partition(b"\0")[0].decode()
    return [name.replace("-", "_") for name in value.split(",") if name]
