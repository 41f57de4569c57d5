"""Which files are attached, and what is said of those that can't be."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from probes.tls_tap import attachments, keeper
from probes.tls_tap.attachments import Attachments
from probes.tls_tap.keeper import Keeper
from probes.tls_tap.mapped import Identity, TlsLibrary
from probes.tls_tap.news import NEWS_BYTES, News

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="probes in the kernel need root"),
]
LIBSSL = Path("/usr/lib/x86_64-linux-gnu/libssl.so.3")


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, int]]:
    """Of a tap for no port."""
    made = Keeper(frozenset())
    yield made._programs
    made.close()


@pytest.fixture
def attached(programs: dict[str, int]) -> Iterator[Attachments]:
    made = Attachments(programs)
    yield made
    made.close()


def library(path: Path) -> TlsLibrary:
    status = path.stat()
    return TlsLibrary(Identity(status.st_dev, status.st_ino), os.getpid(), str(path))


def copy(folder: Path, name: str = "libssl.so.3") -> Path:
    return Path(shutil.copy(LIBSSL, folder / name))


def test_a_file_is_attached_once_whatever_it_is_called(attached: Attachments, tmp_path: Path) -> None:
    first = copy(tmp_path)
    other = tmp_path / "libssl.so.3.0"
    other.hardlink_to(first)
    said = attached.attach([library(first), library(other), library(first)])
    assert said == [f"reading along in {first} of process {os.getpid()}"]
    assert len(attached) == 1
    assert attached.attach([library(other)]) == []


def test_a_file_that_was_put_in_its_place_is_another(attached: Attachments, tmp_path: Path) -> None:
    before = library(copy(tmp_path))
    assert len(attached.attach([before])) == 1
    copy(tmp_path, "new").replace(tmp_path / "libssl.so.3")
    assert attached.attach([before]) == []  # nobody can open that one any more
    assert len(attached.attach([library(tmp_path / "libssl.so.3")])) == 1
    assert len(attached) == 2


@pytest.mark.parametrize("content", [b"", b"\x7fELF", LIBSSL.read_bytes()[:50_000], os.urandom(5_000)])
def test_what_is_no_library_is_said_once(attached: Attachments, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "libssl.so.3"
    path.write_bytes(content)
    (said,) = attached.attach([library(path), library(path)])
    assert said.startswith(f"cannot read along in {path} of process {os.getpid()}: ")
    assert attached.attach([library(path)]) == []
    assert len(attached) == 0


def test_there_is_an_end_to_files(
    attached: Attachments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachments, "FILES_MAX", 3)
    said = attached.attach([library(copy(tmp_path, f"libssl.so.{number}")) for number in range(5)])
    assert len(said) == len(attached) == 3


def test_whatever_is_said_fits_into_a_message_and_shows_no_control_character() -> None:
    names = ["\x1b[31m\nlibssl\udcff" * 1_000, "\u202e" * 5_000, '"\\' * 5_000, "\U0001f600" * 5_000]
    shown = [keeper._shown(name) for name in names * 20][: keeper._LINES]
    assert len(shown) == keeper._LINES
    assert all(character.isprintable() for line in shown for character in line)
    assert len(msgspec.json.encode(News(said=shown))) < NEWS_BYTES
