"""What Archive writes, read back by busybox's cpio or by GNU's."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.kernels.archive import Archive

pytestmark = pytest.mark.skipif(shutil.which("cpio") is None, reason="reads the archives with cpio")


def unpacked(file: Path, into: Path) -> Path:
    into.mkdir()
    with file.open("rb") as archive:
        subprocess.run(
            ["cpio", "-idm", "--quiet", "--no-absolute-filenames"], stdin=archive, cwd=into, check=True
        )
    return into


def test_files_links_and_folders_come_out_as_they_were_put_in(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"\0\1\2" * 1_001)
    source.chmod(0o750)
    with Archive(tmp_path / "archive") as archive:
        archive.folder("/tmp", 0o1777)
        archive.file(source, "/deep/down/file")
        archive.link("/bin", "usr/bin")
        archive.text("/init", "#!/bin/sh\n", 0o755)
    root = unpacked(tmp_path / "archive", tmp_path / "root")
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE((root / "deep").stat().st_mode) == 0o755
    assert (root / "deep/down/file").read_bytes() == source.read_bytes()
    assert stat.S_IMODE((root / "deep/down/file").stat().st_mode) == 0o750
    assert int((root / "deep/down/file").stat().st_mtime) == int(source.stat().st_mtime)
    assert (root / "bin").readlink() == Path("usr/bin")
    assert (root / "init").read_text() == "#!/bin/sh\n"


def test_a_file_behind_links_is_there_with_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("found")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "name").symlink_to("folder/file")
    with Archive(tmp_path / "archive") as archive:
        archive.file(tmp_path / "name")
        archive.file(tmp_path / "name")
    root = unpacked(tmp_path / "archive", tmp_path / "root") / tmp_path.relative_to("/")
    assert (root / "name").readlink() == Path("folder/file")
    assert (root / "folder").readlink() == Path("real")
    assert (root / "name").read_text() == "found"


def test_links_that_lead_in_a_circle_are_an_error_and_not_a_loop(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with Archive(tmp_path / "archive") as archive, pytest.raises(OSError, match="links"):
        archive.file(tmp_path / "one")


def test_a_tree_comes_with_what_its_links_lead_to(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "left_out").mkdir()
    (tree / "left_out/file").write_text("no")
    (tree / "inner/file").write_text("yes")
    (tmp_path / "beside").write_text("beside")
    (tree / "link").symlink_to("../beside")
    (tree / "dangling").symlink_to("nowhere")
    with Archive(tmp_path / "archive") as archive:
        archive.tree(tree, without=["left_out"])
    root = unpacked(tmp_path / "archive", tmp_path / "root") / tree.relative_to("/")
    assert {path.name for path in root.rglob("*")} == {"inner", "file", "link"}
    assert (root / "link").read_text() == "beside"


def test_absolute_links_of_another_root_stay_in_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/linker").write_text("the root's")
    (root / "lib").symlink_to("usr/lib")
    (root / "linker").symlink_to("/lib/linker")
    with Archive(tmp_path / "archive") as archive:
        archive.file(root / "linker", root=root)
    found = unpacked(tmp_path / "archive", tmp_path / "out") / root.relative_to("/")
    assert (found / "linker").readlink() == Path("/lib/linker")
    assert (found / "lib/linker").read_text() == "the root's"
