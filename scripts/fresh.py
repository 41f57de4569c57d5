"""`make fresh RELEASE=trixie`: does what README tells a newcomer work on a machine that has nothing yet?

A new root of Debian, with nothing but git and make, gets a clone of what is committed here, and in it run
`make run` and `make test`. Needs root and debootstrap.

The root is a folder in build/fresh. Its processes run in this machine's kernel, in a mount namespace of their
own: that is gone with all its mounts when the last of them has ended. They share this machine's network, and
its process numbers, because the TLS tap knows processes by those. However this ends,
all that was started in the root is ended first, and the root is removed.

apt and pip reach their servers there as they do on this machine: with its mirror, proxies, certificates and
pip's settings. These are copied into the root alone.
"""

import argparse
import ctypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

RELEASES: Final = ("bookworm", "trixie")
"""Those that README names."""

REPOSITORY: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = REPOSITORY / "build" / "fresh"
CLONE: Final = "/root/smtp-horizon"
"""In a folder that nobody but root may enter, as a newcomer's may well be."""

_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How pip, uv and what they load reach a server.
_SETTING: Final = re.compile(r"(?i)(pip|uv)_\w+|\w+_proxy|ssl_cert_\w+|requests_ca_bundle|curl_ca_bundle")
_SETTINGS_FILES: Final = (
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/pip.conf",
    "/etc/xdg/pip/pip.conf",
    "/etc/uv/uv.toml",
    "/etc/apt/auth.conf",
    "~/.config/pip/pip.conf",
    "~/.pip/pip.conf",
    "~/.config/uv/uv.toml",
)
_SETTINGS_FOLDERS: Final = ("/etc/apt/auth.conf.d", "/usr/local/share/ca-certificates")
# What apt is told of its servers. Its other settings may call programs that only this machine has.
_APT_SETTINGS: Final = re.compile(r"Acquire::(?!IndexTargets|Changelogs)\S+ ")

# What `make run` has to come to, in a root where everything has yet to be installed.
_SESSIONS: Final = 100
_RUN_SECONDS: Final = 1_800.0
_END_SECONDS: Final = 60.0
_LINGER_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.2
_LINES_SHOWN: Final = 40
_METRICS: Final = "http://127.0.0.1:9825/metrics"
_PORTS: Final = (25, 465, 587, 9825)
_LISTENING: Final = "0A"  # in /proc/net/tcp

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER: Final = 36

_ENTER: Final = """
set -eu
root=$1; shift
mount --bind "$root" "$root"
for tree in proc sys dev; do mount --rbind "/$tree" "$root/$tree"; done
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
mount -t tmpfs -o mode=755 run "$root/run"
mkdir -m 1777 "$root/run/lock"
while [ "$1" != -- ]; do mount --bind -o ro "$1" "$root$1"; shift; done
shift
cd "$root"
pivot_root . .
umount --lazy .
exec "$@"
"""
"""Not chroot: whoever is chrooted can make no user namespace, nor change how mounts propagate."""


class CannotBegin(Exception):
    """One line: what is in the way, and what to do."""


class Failed(Exception):
    """What did not work in the root."""


class Terminated(Exception):
    """SIGTERM or SIGHUP."""


def main() -> int:
    arguments = argparse.ArgumentParser(prog="make fresh", description=__doc__.partition("\n")[0])
    arguments.add_argument("release", choices=RELEASES)
    arguments.add_argument("--keep", action="store_true", help="leave the root behind, to look into it")
    arguments.add_argument("command", nargs="*", help="run this in the clone, in place of both")
    chosen = arguments.parse_args()
    for number in _ENDING[1:]:
        signal.signal(number, _terminate)
    try:
        check()
        with fresh_root(chosen.release, keep=chosen.keep) as root:
            if chosen.command:
                step(shlex.join(chosen.command), lambda: root.run(*chosen.command))
            else:
                step("make run", lambda: run_a_while(root))
                step("make test", lambda: root.run("make", "test"))
    except CannotBegin as reason:
        print(f"make fresh: {reason}", file=sys.stderr)
        return 2
    except Failed as reason:
        print(f"make fresh: on {chosen.release}: {reason}", file=sys.stderr)
        return 1
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"make fresh: on {chosen.release}: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Terminated):
        print("make fresh: interrupted", file=sys.stderr)
        return 1
    print(f"make fresh: all passed on {chosen.release}")
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def step(name: str, do: Callable[[], None]) -> None:
    """Says what is done, and how long it took."""
    print(f"--- {name}", flush=True)
    began = time.monotonic()
    try:
        do()
    finally:
        print(f"--- {name}: {time.monotonic() - began:.0f} s", flush=True)


def check() -> None:
    if os.geteuid() != 0:
        raise CannotBegin("needs root, for debootstrap and chroot; run it as root")
    for program in ("debootstrap", "unshare", "git"):
        if shutil.which(program) is None:
            package = "util-linux" if program == "unshare" else program
            raise CannotBegin(f"{program} is not installed; apt-get install {package}")
    taken = sorted(listening() & set(_PORTS))
    if taken:
        raise CannotBegin(
            f"something listens here on port {', '.join(map(str, taken))}: `make run` in the root would watch"
            " that, or needs the port itself; end it, or take another machine"
        )


def listening() -> set[int]:
    """TCP ports on which something listens here."""
    found = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == _LISTENING:
                    found.add(int(local.rpartition(":")[2], 16))
    return found


# ---------------------------------------------------------------------- the root


class Root:
    """A folder, and processes that have it for their root."""

    def __init__(self, path: Path, environment: Mapping[str, str], shown: Iterable[Path]) -> None:
        """`shown`: folders of this machine that can be read at the same place in the root."""
        self.path = path
        self._environment = {
            **environment,
            "HOME": "/root",
            "PATH": _PATH,
            "TERM": os.environ.get("TERM", "dumb"),
        }
        self._shown = list(map(str, shown))
        for folder in self._shown:
            (path / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def start(self, *command: str, folder: str = CLONE, output: int | None = None) -> "subprocess.Popen[str]":
        """In a process group of its own: a Ctrl-C comes to us, and we end it."""
        return subprocess.Popen(
            [
                *("unshare", "--mount", "--uts", "--ipc", "--propagation", "private"),
                *("sh", "-c", _ENTER, "enter", str(self.path), *self._shown, "--"),
                *("env", "--chdir", folder, *command),
            ],
            env=self._environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def run(self, *command: str, folder: str = CLONE) -> None:
        """Raises Failed."""
        process = self.start(*command, folder=folder)
        try:
            status = wait(process)
        finally:
            end(process)
        if status != 0:
            raise Failed(f"{shlex.join(command)}: status {status}")


@contextmanager
def fresh_root(release: str, *, keep: bool) -> Iterator[Root]:
    """Raises CannotBegin, Failed."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # Nobody else may enter: there are programs in it that run as root whoever starts them.
    FOLDER.mkdir(parents=True, exist_ok=True)
    FOLDER.chmod(0o700)
    path = FOLDER / f"{release}.{os.getpid()}"
    try:
        step(f"a root of {release}", lambda: unpack(release, path))
        environment, shown = copy_settings(release, path)
        root = Root(path, environment, shown)
        step("apt-get update, and upgrade", lambda: bring_up_to_date(root))
        step("git clone", lambda: clone(root))
        yield root
    finally:
        with undisturbed():
            end_all()
            if keep:
                print(f"make fresh: the root is {path}; remove it when you have seen enough")
            else:
                remove(path)


def bring_up_to_date(root: Root) -> None:
    """As an installed machine is. debootstrap knows no security updates."""
    root.run("apt-get", "-qq", "update", folder="/")
    upgrade = ("apt-get", "-qq", "--yes", "-o", "Dpkg::Use-Pty=0", "upgrade")
    root.run("env", "DEBIAN_FRONTEND=noninteractive", *upgrade, folder="/")


def unpack(release: str, path: Path) -> None:
    """From what debootstrap made the last time, or by debootstrap."""
    packed = FOLDER / f"{release}.tar"
    if not packed.exists():
        debootstrap(release, path, packed)
    else:
        path.mkdir()
        subprocess.run(
            ["tar", "--extract", "--numeric-owner", "--file", packed, "--directory", path], check=True
        )


def debootstrap(release: str, path: Path, packed: Path) -> None:
    command = [
        "debootstrap",
        "--force-check-gpg",
        "--variant=minbase",
        "--include=git,make",
        release,
        str(path),
    ]
    mirror = mirrors()[0]
    if mirror is not None:
        command.append(mirror)
    said = FOLDER / f"{release}.debootstrap.log"
    proxy = apt_setting("Acquire::http::Proxy")
    environment = {**os.environ, **({"http_proxy": proxy} if proxy else {})}
    with said.open("w") as log:
        made = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        )
    if made.returncode != 0:
        last = (said.read_text().strip().splitlines() or ["it said nothing"])[-1]
        raise CannotBegin(f"debootstrap could not make a root of {release} ({last}); see {said}")
    unfinished = packed.with_suffix(f".tar.{os.getpid()}")
    try:
        subprocess.run(
            ["tar", "--create", "--numeric-owner", "--file", unfinished, "--directory", path, "."], check=True
        )
        unfinished.rename(packed)
    finally:
        unfinished.unlink(missing_ok=True)


def clone(root: Root) -> None:
    """By the root's own git, of what is committed here."""
    git = ["git", "-C", str(REPOSITORY), "-c", f"safe.directory={REPOSITORY}"]
    # An owner that git can't be told of by -c is told by the environment.
    environment = {
        **os.environ,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    if subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no"],
        env=environment,
        capture_output=True,
        check=True,
    ).stdout:
        print("make fresh: what is not committed is left out")
    bundle = root.path / "root" / "smtp-horizon.bundle"
    subprocess.run([*git, "bundle", "create", "--quiet", bundle, "HEAD"], env=environment, check=True)
    quietly = ("-c", "advice.detachedHead=false", "-c", "init.defaultBranch=main")
    root.run("git", *quietly, "clone", "--quiet", "/root/smtp-horizon.bundle", CLONE, folder="/root")


def remove(path: Path) -> None:
    """Only if nothing of the machine's is mounted in it: then it would be removed along with it."""
    if any(
        line.split()[4].startswith(f"{path}/")
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ):
        raise Failed(f"something is mounted in {path}, so it was not removed; unmount that, and remove it")
    shutil.rmtree(path, ignore_errors=True)


# ---------------------------------------------------------------------- this machine's settings


def copy_settings(release: str, path: Path) -> tuple[dict[str, str], set[Path]]:
    """How apt and pip reach their servers. Returns variables, and folders that packages lie in."""
    environment = {name: value for name, value in os.environ.items() if _SETTING.fullmatch(name)}
    texts = list(environment.values())
    for name in _SETTINGS_FILES:
        file = Path(name).expanduser()
        if file.is_file():
            copy(file, path / ("root" + name[1:] if name.startswith("~") else name[1:]))
            if "apt" not in file.parts:
                texts.append(file.read_text())
    for name in _SETTINGS_FOLDERS:
        for file in Path(name).rglob("*"):
            if file.is_file():
                copy(file, path / str(file)[1:])
    write_apt_settings(release, path)
    shown = set()
    for named in named_in(texts):
        if named.is_file():
            copy(named, path / str(named)[1:])
        elif named.is_dir() and named.parts[1] != "etc":  # its packages fill the root's own /etc
            # The pages of an index lead to files beside it.
            shown.add(named.parent if named.name == "simple" else named)
    return environment, shown


def named_in(texts: Iterable[str]) -> Iterator[Path]:
    """What is on this machine of the paths that settings name."""
    for text in texts:
        for word in re.split(r"[\s=,'\"]+", text):
            named = Path(word.removeprefix("file://"))
            if named.is_absolute() and len(named.parts) > 2 and named.exists():
                yield named


def copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.unlink(missing_ok=True)  # it may be a link that leads out of the root
    shutil.copy(file, to)


def write_apt_settings(release: str, path: Path) -> None:
    mirror, security = mirrors()
    if mirror is not None:
        (path / "etc/apt/sources.list").unlink(missing_ok=True)
        entries = [(mirror, f"{release} {release}-updates")]
        if security is not None:
            entries.append((security, f"{release}-security"))
        stanzas = [
            f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {_KEYRING}\n"
            for uri, suites in entries
        ]
        (path / "etc/apt/sources.list.d/debian.sources").write_text("\n".join(stanzas))
    settings = [line for line in apt_config().splitlines() if _APT_SETTINGS.match(line) and '""' not in line]
    (path / "etc/apt/apt.conf.d/00-as-on-the-machine").write_text("".join(f"{line}\n" for line in settings))


def apt_config() -> str:
    if shutil.which("apt-config") is None:
        return ""
    return subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout


def apt_setting(name: str) -> str | None:
    found = re.search(rf'^{name} "([^"]+)";$', apt_config(), re.MULTILINE)
    return found[1] if found else None


def mirrors() -> tuple[str | None, str | None]:
    """Where this machine has Debian and its security updates from; None where it does not know."""
    if shutil.which("apt-get") is None:
        return None, None
    listed = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    known: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        label, _, uri = line.rpartition(" ")
        known.setdefault(label, uri)
    return known.get("Debian"), known.get("Debian-Security")


# ---------------------------------------------------------------------- make run


def run_a_while(root: Root) -> None:
    """Until it has seen a number of sessions, and been told to end. Raises Failed."""
    said_file = FOLDER / "run.log"
    with said_file.open("w") as output:
        process = root.start("make", "run", output=output.fileno())
        try:
            seen = wait_for_sessions(process)
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
            status = wait(process, _END_SECONDS)
            left = descendants_left()
        finally:
            end(process)
    said = said_file.read_text()
    print("\n".join(said.splitlines()[-_LINES_SHOWN:]))
    if status is None:
        raise Failed(f"make run did not end within {_END_SECONDS:.0f} s of SIGINT; see {said_file}")
    # make itself dies by the signal, whatever its command did.
    if status not in (0, 2, -signal.SIGINT, 128 + signal.SIGINT):
        raise Failed(f"make run ended with status {status}; see {said_file}")
    if "Traceback" in said or "How much of this mail" not in said:
        raise Failed(f"make run did not end with its report; see {said_file}")
    if left:
        raise Failed(f"make run left processes behind: {', '.join(left)}")
    print(f"make run: {seen} sessions, and an orderly end")


def wait_for_sessions(process: "subprocess.Popen[str]") -> int:
    deadline = time.monotonic() + _RUN_SECONDS
    while wait(process, 1.0) is None:
        if (seen := sessions_counted()) >= _SESSIONS:
            return seen
        if time.monotonic() > deadline:
            raise Failed(f"make run: {seen} sessions after {_RUN_SECONDS:.0f} s; see {FOLDER / 'run.log'}")
    raise Failed(f"make run ended by itself, with status {process.returncode}; see {FOLDER / 'run.log'}")


def sessions_counted() -> int:
    try:
        with urllib.request.urlopen(_METRICS, timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return 0
    return sum(
        int(float(value)) for value in re.findall(r"^smtp_sessions_total{.*} (\S+)$", text, re.MULTILINE)
    )


# ---------------------------------------------------------------------- processes


def wait(process: "subprocess.Popen[str]", seconds: float = float("inf")) -> int | None:
    """Its status, or None after so many seconds.

    What its children leave behind becomes our child, as we have asked for. We take note of its end, as init
    would: a test may wait until a process is gone.
    """
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        reap(process.pid)
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL_SECONDS)
    return process.returncode


def end(process: "subprocess.Popen[str]") -> None:
    """In good order if it can, so that it removes what it has made; then whatever is left of it. Who
    interrupts a second time does not want to wait for that order."""
    with suppress(KeyboardInterrupt, Terminated):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            wait(process, _END_SECONDS)
    with undisturbed():
        end_all(process)


def end_all(process: "subprocess.Popen[str] | None" = None) -> None:
    """Whatever was started here and has not ended. `process`: one whose status is wanted."""
    while left := list(descendants_of(os.getpid())):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process is not None:
            process.poll()
        reap(None if process is None else process.pid)
        time.sleep(_POLL_SECONDS)


@contextmanager
def undisturbed() -> Iterator[None]:
    """No signal that can be ignored keeps us from cleaning up."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def descendants_left() -> list[str]:
    """The names of those that have not ended, a moment later."""
    deadline = time.monotonic() + _LINGER_SECONDS
    while left := list(descendants_of(os.getpid())):
        reap()
        if time.monotonic() >= deadline:
            return [name for pid in left if (name := name_of(pid))]
        time.sleep(_POLL_SECONDS)
    return []


def name_of(pid: int) -> str:
    with suppress(OSError):
        return Path("/proc", str(pid), "comm").read_text().strip()
    return ""


def reap(but_for: int | None = None) -> None:
    for pid in children_of(os.getpid()):
        if pid != but_for:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def descendants_of(pid: int) -> Iterator[int]:
    for child in children_of(pid):
        yield child
        yield from descendants_of(child)


def children_of(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):  # it has ended
        for task in Path("/proc", str(pid), "task").iterdir():
            children += map(int, (task / "children").read_text().split())
    return children


if __name__ == "__main__":
    sys.exit(main())
