"""What another user could leave where root looks for code: each thing writes its name down when it is run."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from probes.ebpf.program import tried


def imported_by(said: str) -> set[str]:
    """Top-level names of all that a Python has imported, as it says itself with `-X importtime`."""
    return set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\w+)", said, re.MULTILINE))


def imported_by_loader() -> set[str]:
    """Asked of one that loads the filter."""
    said: list[str] = []
    run = subprocess.run

    def run_and_listen(command: list[str], **options: Any) -> "subprocess.CompletedProcess[bytes]":
        finished: subprocess.CompletedProcess[bytes] = run(
            [command[0], "-X", "importtime", *command[1:]], **options
        )
        said.append(finished.stderr.decode())
        return finished

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", run_and_listen)
        tried()
    names = imported_by(said[0])
    assert {"probes", "msgspec", "socket", "ctypes", "encodings"} <= names
    return names


_VERSION: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"


class Traps:
    def __init__(self, folder: Path) -> None:
        """Everything lies below the folder, for any user to read, and to write his name down."""
        folder.mkdir()
        self.folder = folder
        """Where who walks into them stands."""
        self._log = folder / "sprung"
        self._log.touch()
        self._log.chmod(0o666)
        self.environment: dict[str, str] = {}
        """That leads to them."""

    @property
    def sprung(self) -> list[str]:
        """What was run: a line each, with its process."""
        return self._log.read_text().splitlines()

    def modules(self, names: Iterable[str]) -> None:
        """In the current folder, on PYTHONPATH, below PYTHONHOME, and in a user's own site-packages."""
        library = self.folder / "home/lib" / _VERSION
        site = self.folder / "base/lib" / _VERSION / "site-packages"
        own_site = self.folder / ".local/lib" / _VERSION / "site-packages"
        for place in (self.folder, self.folder / "path", library, site, own_site):
            place.mkdir(parents=True, exist_ok=True)
            for name in {*names, "sitecustomize", "usercustomize"}:
                (place / f"{name}.py").write_text(self._note(f"{place.relative_to(self.folder)}/{name}"))
        start_up = self.folder / "startup.py"
        start_up.write_text(self._note("PYTHONSTARTUP"))
        self.environment |= {
            "HOME": str(self.folder),
            "PYTHONPATH": str(self.folder / "path"),
            "PYTHONHOME": str(self.folder / "home"),
            "PYTHONUSERBASE": str(self.folder / "base"),
            "PYTHONSTARTUP": str(start_up),
        }

    def wireshark(self) -> None:
        """Scripts and settings of Wireshark's, where its environment and the home directory lead."""
        folders = (
            ".config/wireshark",
            ".wireshark",
            ".local/lib/wireshark/plugins",
            "wireshark",
            "wireshark/plugins",
        )
        for name in folders:
            place = self.folder / name
            place.mkdir(parents=True, exist_ok=True)
            for script in ("init.lua", "planted.lua"):
                note = f"script {name}/{script}"
                (place / script).write_text(_SCRIPT.format(log=self._log, note=note))
            (place / "preferences").write_text("ip.defragment: FALSE\n")
            (place / "disabled_protos").write_text("tcp\n")
        self.environment |= {
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / ".config"),
            **{
                f"WIRESHARK_{what}_DIR": str(self.folder / "wireshark")
                for what in ("CONFIG", "DATA", "PLUGIN", "EXTCAP")
            },
        }

    def programs(self, *names: str) -> None:
        """First on PATH."""
        place = self.folder / "bin"
        place.mkdir(exist_ok=True)
        for name in names:
            program = place / name
            program.write_text(f'#!/bin/sh\necho "program {name} $$" >> {self._log}\nexit 1\n')
            program.chmod(0o755)
        self.environment["PATH"] = f"{place}:/usr/sbin:/usr/bin:/sbin:/bin"

    def libraries(self, *names: str) -> None:
        """By LD_PRELOAD, and the named ones by LD_LIBRARY_PATH."""
        place = self.folder / "lib"
        place.mkdir(exist_ok=True)
        preloaded = place / "preloaded.so"
        source = place / "library.c"
        source.write_text(_LIBRARY.replace("LOG", str(self._log)))
        subprocess.run(["cc", "-shared", "-fPIC", "-o", preloaded, source], check=True)
        for name in names:
            shutil.copy(preloaded, place / name)
        self.environment |= {"LD_PRELOAD": str(preloaded), "LD_LIBRARY_PATH": str(place)}

    def _note(self, name: str) -> str:
        return _MODULE.format(log=str(self._log), name=name)


# Of what is built in alone: it may be among the first that Python imports.
_MODULE: Final = """
import posix
posix.write(posix.open({log!r}, posix.O_WRONLY | posix.O_APPEND), b"module {name} %d\\n" % posix.getpid())
"""

_SCRIPT: Final = """
local log = io.open("{log}", "a")
log:write("{note}\\n")
log:close()
"""

_LIBRARY: Final = """
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void note(void)
{
    FILE *log = fopen("LOG", "a");
    if (log) {
        fprintf(log, "library %d\\n", getpid());
        fclose(log);
    }
}
"""
