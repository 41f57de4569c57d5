"""Debian's kernels, fetched from its releases into the lab's cache. Nothing is installed.

apt keeps everything in a folder of its own, so this machine's package lists stay as they are. A kernel
appears in the cache by one renaming, when it is whole.
"""

import lzma
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard

from tests.lab.debian_root import CACHE, LabUnavailableError, apt_of_its_own, mirror

ARCHITECTURE: Final = "amd64"
_META_PACKAGE: Final = f"linux-image-{ARCHITECTURE}"
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
    try:
        mirrors = {release.suite: mirror(), f"{release.suite}-security": _security_mirror()}
    except LabUnavailableError as error:
        raise KernelUnavailableError(str(error)) from None
    options = [*apt_of_its_own(folder, mirrors), "-o", "Acquire::Languages=none"]
    options += ["-o", f"APT::Architecture={ARCHITECTURE}", "-o", f"APT::Architectures={ARCHITECTURE}"]
    _apt(*options, "update")
    package = _image_package(options)
    downloads = folder / "downloads"
    downloads.mkdir()
    _apt(*options, "download", package, folder=downloads)
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


def _security_mirror() -> str:
    try:
        return mirror("-security")
    except LabUnavailableError:  # a machine without security updates: most mirrors have them beside the rest
        return mirror().rstrip("/") + "-security"


def _apt(*arguments: str, folder: Path | None = None) -> None:
    command = ["apt-get", "-qq", *arguments]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise KernelUnavailableError(f"apt-get failed: {done.stderr.strip().rpartition(chr(10))[2]}")


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
