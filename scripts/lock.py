"""What goes into the container: deploy/requirements.lock, and for what builds it deploy/build.lock.

    python scripts/lock.py             writes both anew, from pyproject.toml and the newest releases: needs uv
                                       and the network
    python scripts/lock.py --check     whether they are what pyproject.toml asks for; needs neither

A lock says version and hashes of every package, and not where to get it: that is for whoever installs.
"""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parents[1]
DEPLOY: Final = ROOT / "deploy"
PYTHON: Final = "3.11"  # Debian 12's, which the Containerfile takes

_PIN: Final = re.compile(r"([A-Za-z0-9._-]+)(?:\[[\w,]+\])?==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)")


def asked_for() -> dict[Path, list[str]]:
    """What each lock is made of: requirements as pyproject.toml has them."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {
        DEPLOY / "requirements.lock": project["project"]["dependencies"],
        DEPLOY / "build.lock": project["build-system"]["requires"],
    }


def write() -> None:
    """Makes them anew."""
    for lock, requirements in asked_for().items():
        compiled = subprocess.run(
            [
                *(Path(sys.executable).with_name("uv"), "pip", "compile", "-", "--quiet", "--upgrade"),
                *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"),
                *("--no-emit-find-links", "--python-version", PYTHON, "--python-platform", "linux"),
            ],
            input="\n".join(requirements),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        lock.write_text(f"# Written by `make lock`.\n{compiled.stdout}")


def problems(lock: Path, requirements: list[str]) -> list[str]:
    """Why the lock is not what they ask for; each a line. Empty where it is.

    What a package needs in its turn is known of those that are installed here.
    """
    try:
        text = lock.read_text()
    except FileNotFoundError:
        return [f"{lock.name} is not there"]
    found = []
    pins: dict[str, str] = {}
    for line in re.sub(r" *\\\n *", " ", text).splitlines():
        pin = _PIN.fullmatch(line)
        if pin is not None:
            pins[canonicalize_name(pin[1])] = pin[2]
        elif line and not line.startswith("#"):
            found.append(f"{lock.name}: no pinned version with its hashes: {line[:60]}")
    needed: set[str] = set()
    is_all_known = True
    waiting = [(Requirement(one), "pyproject.toml") for one in requirements]
    while waiting:
        requirement, by = waiting.pop()
        name = canonicalize_name(requirement.name)
        version = pins.get(name)
        if version is None:
            found.append(f"{lock.name}: {requirement} is missing, which {by} asks for")
        elif not requirement.specifier.contains(Version(version), prereleases=True):
            found.append(f"{lock.name}: {name} is {version}, and {by} asks for {requirement}")
        if name not in needed or requirement.extras:
            needed.add(name)
            its_own = _of(name, requirement.extras)
            is_all_known = is_all_known and its_own is not None
            waiting += [(one, name) for one in its_own or ()]
    if is_all_known:
        found += [f"{lock.name}: nobody needs {name}" for name in sorted(pins.keys() - needed)]
    return found


def _of(name: str, extras: set[str]) -> list[Requirement] | None:
    """What a package needs; None where it is not installed here."""
    try:
        all_of_it = map(Requirement, requires(name) or ())
    except PackageNotFoundError:
        return None
    environments = [{"extra": extra, "python_version": PYTHON} for extra in ("", *extras)]
    return [
        one
        for one in all_of_it
        if one.marker is None or any(one.marker.evaluate(environment) for environment in environments)
    ]


def main() -> int:
    if sys.argv[1:] != ["--check"]:
        write()
    found = [
        problem for lock, requirements in asked_for().items() for problem in problems(lock, requirements)
    ]
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        print("`make lock` writes the locks anew", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
