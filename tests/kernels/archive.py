"""An initramfs: the whole root of a virtual machine in one file, in cpio's "newc" format.

It is written straight from this machine's files, so nothing is copied twice and nothing here changes. The
kernel's Documentation/driver-api/early-userspace/buffer-format.rst describes the format.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_ALIGNMENT: Final = 4
_END: Final = "TRAILER!!!"
_MOST_LINKS: Final = 40
"""On the way to one file: as the kernel has it (path_resolution(7))."""


class Archive:
    """The file; a context manager. A path that was added before is left as it is."""

    def __init__(self, file: Path) -> None:
        self._out = file.open("wb")
        self._names: set[str] = set()
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._out:
            if error is None:
                self._entry(_END, 0, b"")

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._add(path, stat.S_IFDIR | mode, b"")

    def text(self, path: str, text: str, mode: int = 0o644) -> None:
        self.content(path, text.encode(), mode)

    def content(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._add(path, stat.S_IFREG | mode, content)

    def link(self, path: str, target: str) -> None:
        self._add(path, stat.S_IFLNK | 0o777, os.fsencode(target))

    def file(self, source: Path, path: str | None = None, *, root: Path = Path("/")) -> None:
        """A file of this machine; `path`: where it is in the archive, if elsewhere. `root`: where absolute
        links begin.

        Where no other path is given, links on the way to it are added as they are, and what they lead to.
        """
        if path is None:
            if str(source).strip("/") in self._names:
                return
            source = self._follow(Path(os.path.abspath(source)), root)
            path = str(source)
        about = source.stat()
        self._add(path, about.st_mode, source.read_bytes(), about)

    def tree(self, folder: Path, *, without: Iterable[str] = ()) -> None:
        """A folder of this machine with all in it, but for folders and files of these names."""
        names = frozenset(without)
        for entry in sorted(folder.iterdir()):
            if entry.name in names:
                continue
            if entry.is_symlink():
                if entry.exists():
                    self._tree_or_file(entry, names)
            elif entry.is_dir():
                self.tree(entry, without=names)
            elif entry.is_file():
                self.file(entry)

    def _tree_or_file(self, link: Path, without: frozenset[str]) -> None:
        target = self._follow(link)
        if target.is_dir():
            self.tree(target, without=without)
        else:
            self.file(target)

    def _follow(self, path: Path, root: Path = Path("/")) -> Path:
        """Adds every link on the way to the file; returns where the file itself is."""
        for _ in range(_MOST_LINKS):
            link = next((part for part in (*reversed(path.parents), path) if part.is_symlink()), None)
            if link is None:
                return path
            self.link(str(link), str(link.readlink()))
            target = link.readlink()
            beside = root / target.relative_to("/") if target.is_absolute() else link.parent / target
            path = Path(os.path.abspath(beside / path.relative_to(link)))
        raise OSError(f"too many links on the way to {path}")

    def _add(self, path: str, mode: int, content: bytes, about: os.stat_result | None = None) -> None:
        name = path.strip("/")
        if name in self._names:
            return
        for parent in reversed(Path(name).parents):
            if str(parent) != ".":
                self.folder(str(parent))
        self._names.add(name)
        self._entry(name, mode, content, about)

    def _entry(self, name: str, mode: int, content: bytes, about: os.stat_result | None = None) -> None:
        """The owner is root, but for files that are somebody's on this machine."""
        self._number += 1
        owner, group, changed = (about.st_uid, about.st_gid, int(about.st_mtime)) if about else (0, 0, 0)
        encoded = os.fsencode(name) + b"\0"
        fields = (self._number, mode, owner, group, 1, changed, len(content), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % (field & 0xFFFFFFFF) for field in fields)
        self._out.write(_padded(header + encoded))
        self._out.write(_padded(content))


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % _ALIGNMENT)
