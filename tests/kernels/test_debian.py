"""Kernels in the cache: whole, or not there."""

import os
import time
from pathlib import Path

import pytest

from tests.kernels import debian
from tests.kernels.debian import Kernel, KernelUnavailableError, Release

RELEASE = Release("bookworm", "6.1")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nothing can be fetched."""
    monkeypatch.setattr(debian, "CACHE", tmp_path)

    def fail(*words: str, folder: Path | None = None) -> None:
        raise KernelUnavailableError("apt-get failed: no network")

    monkeypatch.setattr(debian, "_apt", fail)
    monkeypatch.setattr(debian, "mirror", lambda archive="": "http://mirror.test/debian")
    return tmp_path / "kernels"


def kernel_in(cache: Path, *, days_old: float) -> Kernel:
    folder = cache / "bookworm"
    (folder / "boot").mkdir(parents=True)
    (folder / "boot/vmlinuz-6.1.0-57-amd64").touch()
    (folder / "boot/System.map-6.1.0-57-amd64").touch()
    version = folder / "package-version"
    version.write_text("6.1.192-3\n")
    then = time.time() - days_old * 86_400
    os.utime(version, (then, then))
    return Kernel(folder)


def module(needed: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + needed.encode() + b"\0retpoline=Y\0"


def test_a_kernel_that_cannot_be_fetched_leaves_nothing_behind(cache: Path) -> None:
    with pytest.raises(KernelUnavailableError, match="no network"):
        debian.fetched(RELEASE)
    assert list(cache.iterdir()) == []


def test_what_was_begun_and_not_finished_is_not_taken_for_a_kernel(cache: Path) -> None:
    (cache / "bookworm/boot").mkdir(parents=True)
    (cache / "bookworm/boot/vmlinuz-6.1.0-57-amd64").touch()
    with pytest.raises(KernelUnavailableError):
        debian.fetched(RELEASE)


@pytest.mark.parametrize("days_old", [1, 8])
def test_one_in_the_cache_is_good_enough_where_no_newer_one_can_be_had(cache: Path, days_old: float) -> None:
    kernel = debian.fetched(RELEASE) if kernel_in(cache, days_old=days_old) else None
    assert kernel is not None
    assert (kernel.release, kernel.version) == ("6.1.0-57-amd64", "6.1.192-3")


def test_modules_come_after_those_that_they_need(cache: Path) -> None:
    kernel = kernel_in(cache, days_old=1)
    folder = kernel.folder / "lib/modules/6.1.0-57-amd64"
    folder.mkdir(parents=True)
    (folder / "modules.builtin").write_text("kernel/net/ipv4/tunnel4.ko\n")
    needs = {"8021q": "garp,mrp", "garp": "stp,tunnel4", "mrp": "", "stp": "llc", "llc": "", "veth": ""}
    for name, needed in needs.items():
        (folder / f"{name}.ko").write_bytes(module(needed))
    found = [file.stem for file, _ in kernel.modules(["veth", "8021q"])]
    assert found == ["veth", "llc", "stp", "garp", "mrp", "8021q"]
