"""Two hosts made of network namespaces, joined by one cable.

    +-- server namespace --+          +-- client namespace --+
    |  10.77.0.1, .2, ...  | mail0 == mail0  10.77.1.1, ...  |
    |  fd77::1, ...        |          |  fd77::1:1, ...      |
    +----------------------+          +----------------------+

Each side has many addresses: a personality for each server, and a client for each address. Names carry the
process that made them, so that what a killed run left behind is known as such and removed by the next one.
"""

import ctypes
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

PREFIX: Final = "horizon"
INTERFACE: Final = "mail0"
PREFIX_LENGTH_V4: Final = 16
PREFIX_LENGTH_V6: Final = 64
# setns(2): which kind of namespace the file descriptor must be.
CLONE_NEWNET: Final = 0x40000000

# Mail servers drop privileges and still have to reach their folders inside.
_FOLDER_MODE: Final = 0o755

# One process may have several networks at a time.
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


def server_address(number: int, family: int = 4) -> str:
    """The server side's address of that number (1 ... 99)."""
    return f"10.77.0.{number}" if family == 4 else f"fd77::{number}"


def client_address(number: int, family: int = 4) -> str:
    """The client side's address of that number (1 ... 99)."""
    return f"10.77.1.{number}" if family == 4 else f"fd77::1:{number}"


class Namespace:
    """One host: runs programs and threads whose network is this namespace."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, arguments: Sequence[str | Path]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *map(str, arguments)]

    def run(
        self, arguments: Sequence[str | Path], *, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end; its output is in the answer."""
        finished = subprocess.run(
            self.command(arguments), capture_output=True, text=True, check=False, **options
        )
        if check and finished.returncode != 0:
            raise RuntimeError(
                f"{' '.join(map(str, arguments))}: status {finished.returncode}: "
                f"{finished.stderr.strip() or finished.stdout.strip()}"
            )
        return finished

    def start(
        self,
        arguments: Sequence[str | Path],
        *,
        output: IO[Any] | int = subprocess.DEVNULL,
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """Starts a program; both its outputs go to `output` unless said otherwise.

        It gets a session of its own: a Ctrl-C in the terminal is for this process, which ends its programs in
        the right order.
        """
        options.setdefault("start_new_session", True)
        options.setdefault("stdout", output)
        options.setdefault("stderr", output)
        return subprocess.Popen(self.command(arguments), stdin=subprocess.DEVNULL, **options)

    def enter_thread(self) -> None:
        """Moves the calling thread, and no other, into the namespace: sockets that it makes belong there."""
        with Path(f"/run/netns/{self.name}").open("rb") as namespace:
            if _libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), self.name)

    def threads(self, count: int) -> ThreadPoolExecutor:
        """A pool of threads that live in the namespace."""
        return ThreadPoolExecutor(count, thread_name_prefix=self.name, initializer=self.enter_thread)

    def listening(self) -> set[tuple[str, int]]:
        """Addresses and ports on which something listens for TCP."""
        lines = self.run(["ss", "-Hltn"]).stdout.splitlines()
        ends = (line.split()[3].rpartition(":") for line in lines)
        return {(host.strip("[]").partition("%")[0], int(port)) for host, _, port in ends}

    def await_listeners(self, wanted: Iterable[tuple[str, int]], *, timeout_seconds: float = 15) -> None:
        ends = set(wanted)
        self._await_none(lambda: ends - self.listening(), "nothing listens on", timeout_seconds)

    def await_free(self, wanted: Iterable[tuple[str, int]], *, timeout_seconds: float = 15) -> None:
        """Until nothing listens there any more."""
        ends = set(wanted)
        self._await_none(lambda: ends & self.listening(), "something still listens on", timeout_seconds)

    def _await_none(
        self, amiss: Callable[[], set[tuple[str, int]]], complaint: str, timeout_seconds: float
    ) -> None:
        deadline = time.monotonic() + timeout_seconds
        while left := amiss():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: {complaint} {sorted(left)}")
            time.sleep(0.02)

    def processes(self) -> list[int]:
        listed = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False
        )
        return [int(line) for line in listed.stdout.split()]


class Network:
    """The two namespaces, and a folder for all that runs in them; a context manager."""

    def __init__(self, *, addresses: int = 60, offload: bool = True, on_disk: bool = False) -> None:
        """
        Args:
            on_disk: where the folder is. In memory, a mail server does not wait for a disk that is busy with
                something else, each time that it has a message written down before it answers.
        """
        self._addresses = addresses
        self._offload = offload
        self._on_disk = on_disk
        self._name = f"{PREFIX}-{_identity(os.getpid())}-{next(_numbers)}"
        self.server = Namespace(f"{self._name}-server")
        self.client = Namespace(f"{self._name}-client")
        self.folder = Path()

    def __enter__(self) -> Self:
        remove_stale()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self._name}-"))
        self.folder.chmod(_FOLDER_MODE)
        try:
            self._create()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _create(self) -> None:
        if not self._on_disk:
            options = ["-t", "tmpfs", "-o", f"mode={_FOLDER_MODE:o}", self._name]
            subprocess.run(["mount", *options, self.folder], check=True)
        for namespace in (self.server, self.client):
            _ip(f"netns add {namespace.name}")
        _ip(
            f"-n {self.server.name} link add {INTERFACE} type veth "
            f"peer name {INTERFACE} netns {self.client.name}"
        )
        for namespace, address in ((self.server, server_address), (self.client, client_address)):
            lines = []
            for number in range(1, self._addresses + 1):
                lines.append(f"address add {address(number)}/{PREFIX_LENGTH_V4} dev {INTERFACE}")
                lines.append(f"address add {address(number, 6)}/{PREFIX_LENGTH_V6} dev {INTERFACE} nodad")
            lines += [f"link set {INTERFACE} up", "link set lo up"]
            _ip(f"-n {namespace.name} -batch -", given="\n".join(lines) + "\n")
            if not self._offload:
                namespace.run(["ethtool", "-K", INTERFACE, "tso", "off", "gso", "off", "gro", "off"])

    def _remove(self) -> None:
        for namespace in (self.server, self.client):
            remove_namespace(namespace)
        _remove_folder(self.folder)


def remove_namespace(namespace: Namespace) -> None:
    """Ends what still runs in the namespace, then removes it."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        ours = [process for process in namespace.processes() if process != os.getpid()]
        for process in ours:
            try:
                os.kill(process, signal_number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + 2
        while ours and time.monotonic() < deadline and set(namespace.processes()) - {os.getpid()}:
            time.sleep(0.02)
    subprocess.run(["ip", "netns", "delete", namespace.name], capture_output=True, check=False)


def remove_stale() -> None:
    """Removes the namespaces and folders whose process is no more."""
    listed = subprocess.run(["ip", "-j", "netns"], capture_output=True, text=True, check=True).stdout
    for entry in json.loads(listed or "[]"):
        if _is_stale(entry["name"]):
            remove_namespace(Namespace(entry["name"]))
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*-*-*"):
        if _is_stale(folder.name):
            _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    if folder.is_mount():
        # Lazily: the last program inside may still be about to end.
        subprocess.run(["umount", "--lazy", folder], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _is_stale(name: str) -> bool:
    prefix, _, rest = name.partition("-")
    process, _, rest = rest.partition("-")
    started = rest.partition("-")[0]
    if prefix != PREFIX or not process.isdecimal() or not started.isdecimal():
        return False
    return _identity(int(process)) != f"{process}-{started}"


def _identity(process: int) -> str:
    """The process's number and start time, which together no later process shares; "" when it is gone."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    # proc(5): field 22 is the start time; the name in field 2 may hold blanks, so count from its end.
    return f"{process}-{status.rpartition(')')[2].split()[19]}"


def _ip(arguments: str, given: str | None = None) -> None:
    finished = subprocess.run(
        ["ip", *arguments.split()], input=given, capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        raise RuntimeError(f"ip {arguments}: {finished.stderr.strip()}")
