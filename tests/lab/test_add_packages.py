"""scripts/add-packages against what apt-get really said it would do.

The transactions were recorded on a Debian 12 with Exim, its default mail server. Here apt-get is a stand-in
that tells them, and notes what it is called for. beside_exim4.sh does it with the real one.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

PROGRAM: Final = Path(__file__).parents[2] / "scripts/add-packages"
TRANSACTIONS: Final = Path(__file__).parent / "transactions"

SETTINGS: Final = "etc/ucspi-tcp.conf"

_APT_GET: Final = """\
#!/bin/bash
echo "$*" >> "$(dirname "$0")/calls"
case " $* " in
    *" --simulate "*) cat "$TRANSACTION" ;;
    *" --download-only "*)
        for word in "$@"; do [[ $word == Dir::Cache::Archives=* ]] && cp "$PACKAGE" "${word#*=}"; done ;;
    *" install "*)
        [[ -n ${ROOT-} ]] || exit 0
        options=()
        for word in "$@"; do [[ $word == DPkg::Options::=* ]] && options+=("${word#*::=}"); done
        dpkg --root="$ROOT" --log=/dev/null "${options[@]}" --install "$PACKAGE" || exit 100 ;;
esac
exit 0
"""
_CONTROL: Final = """\
Package: ucspi-tcp
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.test>
Description: for a test
"""
_ENABLES_A_SERVICE: Final = """\
#!/bin/sh
if deb-systemd-helper --quiet was-enabled 'some.service'; then deb-systemd-helper enable 'some.service'; fi
"""


@dataclass(frozen=True, slots=True)
class Added:
    status: int
    said: str
    calls: list[str]

    @property
    def installed(self) -> bool:
        return any(not {"--simulate", "--download-only"} & set(call.split()) for call in self.calls)


def add(
    folder: Path, transaction: str, *packages: str, script: str = "#!/bin/sh\n", root: Path | None = None
) -> Added:
    """`script`: run when the only package that is fetched is installed. `root`: where a real dpkg does that;
    None for nowhere."""
    control = folder / "package/DEBIAN"
    control.mkdir(parents=True)
    if root is not None:
        settings = control.parent / SETTINGS
        settings.parent.mkdir()
        settings.write_text("the package's\n")
        (control / "conffiles").write_text(f"/{SETTINGS}\n")
    (control / "control").write_text(_CONTROL)
    if root is None:
        (control / "postinst").write_text(script)
        (control / "postinst").chmod(0o755)
    package = folder / "ucspi-tcp_1_all.deb"
    build = ["dpkg-deb", "--root-owner-group", "--build", str(control.parent), str(package)]
    subprocess.run(build, check=True, capture_output=True)
    programs = folder / "programs"
    programs.mkdir()
    (programs / "apt-get").write_text(_APT_GET)
    (programs / "apt-get").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TRANSACTION": str(TRANSACTIONS / transaction),
        "PACKAGE": str(package),
        "ROOT": str(root or ""),
    }
    done = subprocess.run([PROGRAM, *packages], env=environment, capture_output=True, text=True, check=False)
    return Added(done.returncode, done.stderr, (programs / "calls").read_text().splitlines())


@pytest.mark.parametrize(
    ("transaction", "package", "complaint"),
    [
        (
            "removes_exim4.txt",
            "postfix",
            "apt-get would remove exim4-base exim4-config exim4-daemon-light. Nothing was changed.",
        ),
        ("upgrades_libc6.txt", "libc6-dev", "apt-get would replace the installed version of libc6."),
        (
            "configures_exim4.txt",
            "ucspi-tcp",
            "apt-get would configure exim4-daemon-light, which is only half installed.",
        ),
    ],
)
def test_nothing_is_installed_that_changes_what_is_there(
    tmp_path: Path, transaction: str, package: str, complaint: str
) -> None:
    added = add(tmp_path, transaction, package)
    assert added.status == 2
    assert added.said.startswith(f"not installed: {package}: {complaint}")
    assert added.said.count("\n") == 1
    assert not added.installed


@pytest.mark.parametrize(
    "script",
    [
        _ENABLES_A_SERVICE,
        "#!/bin/sh\n/etc/init.d/some start\n",
        "#!/bin/sh\n[ -x /x ] || service some restart\n",
        "#!/bin/sh\nstart-stop-daemon --start --exec /usr/sbin/some\n",
    ],
)
def test_nothing_is_installed_that_starts_a_service(tmp_path: Path, script: str) -> None:
    added = add(tmp_path, "only_adds.txt", "ucspi-tcp", script=script)
    assert added.status == 2
    assert "ucspi-tcp would start or enable a service. Nothing was changed." in added.said
    assert not added.installed


def test_what_only_adds_is_installed_and_apt_get_may_not_remove_anything(tmp_path: Path) -> None:
    added = add(tmp_path, "only_adds.txt", "ucspi-tcp")
    assert (added.status, added.said) == (0, "")
    assert added.installed
    assert {"--no-remove", "--no-install-recommends", "install", "ucspi-tcp"} <= set(added.calls[-1].split())


@pytest.mark.skipif(os.geteuid() != 0, reason="dpkg installs for root alone")
def test_settings_that_are_there_stay_as_they_are_and_nothing_is_asked(tmp_path: Path) -> None:
    """As after a package that was removed and not purged. Asked, dpkg would get no answer, and leave the
    package half installed."""
    root = tmp_path / "root"
    for folder in ("etc", "var/lib/dpkg/info", "var/lib/dpkg/updates"):
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    (root / SETTINGS).write_text("the operator's\n")
    added = add(tmp_path, "only_adds.txt", "ucspi-tcp", root=root)
    assert (added.status, added.said) == (0, "")
    assert (root / SETTINGS).read_text() == "the operator's\n"
    assert "Status: install ok installed" in (root / "var/lib/dpkg/status").read_text()
