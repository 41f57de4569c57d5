"""A systemd that runs, with the unit of deploy/ and nothing else: as root.

It is process 1 of namespaces of its own (processes, mounts, network, host name, cgroups), on this machine's
files. What it could change is covered: `/etc`, `/var`, `/run`, `/opt` and the units are in memory,
`/proc/sys` and `/sys` are read-only, its cgroups are below one that is made and removed here. None of the
machine's own units are there, so nothing of the machine's is started.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

ROOT: Final = Path(__file__).parents[2]
VENV: Final = Path(sys.prefix)
UNIT: Final = ROOT / "deploy/smtp-horizon.service"
LOG: Final = "/run/smtp-horizon.log"
DROP_INS: Final = "/etc/systemd/system/smtp-horizon.service.d"
BOOT_SECONDS: Final = 60.0

_SYSTEMD: Final = Path("/lib/systemd/systemd")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp", "/run", "/opt")
"""By ProtectHome= and PrivateTmp=; and by what is mounted here."""
_TARGETS: Final = (
    "basic",
    "sysinit",
    "shutdown",
    "umount",
    "network",
    "sockets",
    "paths",
    "slices",
    "timers",
)

# $1: where Python's environment is; $2: the unit; $3: what systemd's cgroups are mounted as.
_BEGIN: Final = r"""
set -eu
mount -t tmpfs tmpfs /run
mkdir /run/tried
cd /run/tried
mkdir etc etc.work var var.work units
for name in etc var; do
    mount -t overlay -o "lowerdir=/$name,upperdir=$PWD/$name,workdir=$PWD/$name.work" overlay "/$name"
done
units=$(realpath /lib/systemd/system)
for target in $4; do cp "$units/$target.target" units; done
mount --bind units "$units"
cd /
for folder in /lib/systemd/system-generators /etc/systemd/system /opt; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
done
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t sysfs -o ro sysfs /sys
case $3 in
cgroup2)
    mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
*)
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd ;;
esac
ip link set lo up
ln -s "$1" /opt/smtp-horizon
getent passwd smtp-horizon > /dev/null || {
    echo 'smtp-horizon:x:9825:' >> /etc/group
    echo 'smtp-horizon:x:9825:9825::/nonexistent:/usr/sbin/nologin' >> /etc/passwd
}
cp "$2" /etc/systemd/system/smtp-horizon.service
mkdir /etc/systemd/system/smtp-horizon.service.d
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' > /etc/systemd/system/tried.target
# Without a journal its output would be nowhere; and nobody wants to wait for five seconds.
printf '[Service]\nStandardError=append:%s\nRestartSec=100ms\n' /run/smtp-horizon.log \
    > /etc/systemd/system/smtp-horizon.service.d/tried.conf
exec env -i container=tried PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=tried.target --log-target=console --log-level=notice
"""


def why_not() -> str | None:
    """What is missing here; None where it can run."""
    if os.geteuid() != 0:
        return "only root can start a systemd"
    if not _SYSTEMD.exists():
        return "systemd is not installed"
    if any(VENV.is_relative_to(folder) for folder in _HIDDEN):
        return f"the project lies in {VENV.parents[1]}, where the unit does not look"
    if _cgroups() is None:
        return "no hierarchy of cgroups that a systemd could have"
    return None


def _cgroups() -> tuple[Path, str] | None:
    """Where those of systemd are, and what to mount for them."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return _CGROUPS, "cgroup2"
    if (_CGROUPS / "systemd/cgroup.procs").exists():
        return _CGROUPS / "systemd", "cgroup"
    return None


class Systemd:
    """A context manager."""

    def __init__(self, folder: Path) -> None:
        self._console = folder / "console"
        self._unshare: subprocess.Popen[bytes]
        self._init = 0

    def __enter__(self) -> Self:
        found = _cgroups()
        assert found is not None
        hierarchy, kind = found
        self._cgroup = hierarchy / f"smtp-horizon-tests-{os.getpid()}"
        self._cgroup.mkdir()
        options = ["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--propagation", "private"]
        # It is in its own cgroup before it has a namespace of them.
        enter = f'echo 0 > "{self._cgroup}/cgroup.procs"; exec "$@"'
        words = [str(VENV), str(UNIT), kind, " ".join(_TARGETS)]
        command = ["sh", "-c", enter, "sh", "unshare", "--fork", "--kill-child", *options]
        with self._console.open("wb") as console:
            self._unshare = subprocess.Popen(
                [*command, "sh", "-c", _BEGIN, "sh", *words],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        try:
            end = time.monotonic() + BOOT_SECONDS
            while not self._is_up():
                assert self._unshare.poll() is None, self.console
                assert time.monotonic() < end, self.console
                time.sleep(0.1)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _is_up(self) -> bool:
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        if len(children) != 1:
            return False
        self._init = int(children[0])
        if Path(f"/proc/{self._init}/comm").read_text() != "systemd\n":
            return False
        done = self.run("systemctl", "is-active", "tried.target")
        return done.stdout == "active\n"

    def _end(self) -> None:
        if self._init:
            os.kill(self._init, signal.SIGKILL)  # and the kernel ends all that it has begun
        else:
            self._unshare.kill()
        self._unshare.wait()
        end = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < end:
            try:
                for folder, _, _ in sorted(os.walk(self._cgroup), reverse=True):
                    os.rmdir(folder)
            except OSError:  # until the last of its processes is gone
                time.sleep(0.1)
            else:
                return

    @property
    def console(self) -> str:
        return self._console.read_text(errors="replace")[-4000:]

    def run(self, *command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command inside."""
        enter = ["nsenter", "--target", str(self._init), "--mount", "--pid", "--net", "--uts", "--ipc"]
        return subprocess.run(
            [*enter, "--cgroup", *command],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def systemctl(self, *words: str) -> int:
        return self.run("systemctl", *words, "smtp-horizon").returncode

    def shown(self, name: str) -> str:
        """A property of the service."""
        said = self.run("systemctl", "show", f"--property={name}", "smtp-horizon").stdout
        return said.strip().partition("=")[2]

    def configure(self, *lines: str) -> None:
        """Settings of the section [Service], in place of those of last time."""
        content = "\n".join(("[Service]", *lines, ""))
        self.run("tee", f"{DROP_INS}/wanted.conf", text=content)
        assert self.run("systemctl", "daemon-reload").returncode == 0

    def wait_for(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + BOOT_SECONDS
        while not condition():
            assert time.monotonic() < end, self.log()
            time.sleep(0.1)

    def log(self) -> str:
        return self.run("cat", LOG).stdout

    def metrics(self) -> str:
        url = "http://127.0.0.1:9825/metrics"
        program = f"from urllib.request import urlopen; print(urlopen('{url}').read().decode())"
        return self.run(shutil.which("python3") or sys.executable, "-c", program).stdout
