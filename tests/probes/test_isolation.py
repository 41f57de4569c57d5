"""Which programs are started, and what they get from whoever started us."""

import ast
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import pytest

from probes import isolation
from probes.probe import ProbeUnavailable
from probes.tshark.programs import ENVIRONMENT

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ROOT: Final = Path(__file__).parents[2]
NAME: Final = "horizon-test-program"
STRANGER: Final = pwd.getpwnam("daemon")


def program_in(folder: Path) -> Path:
    program = folder / NAME
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def system_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One more of those in which programs are looked for with privileges."""
    folder = Path(mkdtemp(dir="/var/lib"))
    folder.chmod(0o755)
    monkeypatch.setattr(isolation, "PATH", f"{isolation.PATH}:{folder}")
    yield folder
    shutil.rmtree(folder)


@as_root
def test_with_privileges_only_the_system_s_folders_are_searched(
    system_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert isolation.program(NAME) is None
    planted = program_in(tmp_path)
    with pytest.raises(
        ProbeUnavailable, match=f"^{planted} is not started with privileges: it is in none of "
    ):
        isolation.program(NAME)
    own = program_in(system_folder)
    assert isolation.program(NAME) == str(own)


@as_root
@pytest.mark.parametrize("replaceable", ["file", "mode", "folder", "link"])
def test_with_privileges_nobody_but_root_may_be_able_to_replace_it(
    system_folder: Path, replaceable: str, tmp_path: Path
) -> None:
    program = program_in(system_folder)
    match replaceable:
        case "file":
            os.chown(program, STRANGER.pw_uid, 0)
        case "mode":
            program.chmod(0o777)
        case "folder":
            os.chown(system_folder, STRANGER.pw_uid, 0)
        case "link":
            elsewhere = system_folder / "theirs"
            elsewhere.mkdir()
            program.rename(elsewhere / NAME)
            program.symlink_to(elsewhere / NAME)
            os.chown(elsewhere, STRANGER.pw_uid, 0)
    with pytest.raises(
        ProbeUnavailable, match=r"is not started with privileges: .*(belongs to daemon|everybody)"
    ):
        isolation.program(NAME)


@as_root
def test_without_privileges_it_is_the_first_on_path_wherever_we_stand(tmp_path: Path) -> None:
    folder = Path(mkdtemp(dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        program = program_in(folder)
        import_it = f"import sys; sys.path[:0] = {sys.path!r}; from probes.isolation import program"
        ask = f"{import_it}; print(program({NAME!r}))"
        command = [
            "setpriv",
            "--reuid",
            "daemon",
            "--clear-groups",
            "--inh-caps=-all",
            sys.executable,
            "-c",
            ask,
        ]
        said = subprocess.run(
            command, cwd=folder, env={"PATH": ".:/usr/bin"}, capture_output=True, text=True, check=False
        )
        if "Permission denied" in said.stderr or "No module named 'probes'" in said.stderr:
            pytest.skip("the project lies where only root may look")
        assert (said.stdout, said.stderr) == (f"{program}\n", "")
    finally:
        shutil.rmtree(folder)


def test_what_is_started_gets_nothing_of_our_environment() -> None:
    assert set(isolation.ENVIRONMENT) == {"PATH", "LC_ALL"}
    assert set(ENVIRONMENT) == {"PATH", "LC_ALL", "HOME", "WIRESHARK_CONFIG_DIR"}
    assert not Path(ENVIRONMENT["HOME"]).exists()


def test_every_start_of_a_program_is_isolated() -> None:
    """In all sources: who starts one gives it a folder and an environment."""
    starts = {"run", "Popen", "call", "check_call", "check_output", "create_subprocess_exec"}
    never = {"system", "popen", "create_subprocess_shell", "getoutput", "find_library", "execvp", "execlp"}
    seen = 0
    for path in (path for package in ("monitor", "probes") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = ast.unparse(node.func.value)
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            assert node.func.attr not in never or owner not in (
                "os",
                "subprocess",
                "asyncio",
                "ctypes.util",
            ), where
            if node.func.attr in starts and owner in ("subprocess", "asyncio"):
                if owner == "asyncio" and node.func.attr == "run":
                    continue
                seen += 1
                assert {"cwd", "env"} <= {keyword.arg for keyword in node.keywords}, where
    assert seen >= 6
