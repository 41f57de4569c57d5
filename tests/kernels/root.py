"""The root of a virtual machine in which the program, mail servers and clients run: this machine's files.

Each file has the path that it has here, so the virtual environment and the lab find it. Python's packages say
which files are theirs, and the dynamic linker which libraries a program needs. Only the rest is listed here.
"""

import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from scripts.native import ROOT
from tests.kernels.archive import Archive
from tests.kernels.debian import Kernel
from tests.kernels.recording import INDEX
from tests.kernels.tools import busybox
from tests.lab.packages import POSTFIX_ROOT, SERVERS_ROOT

STAND_IN: Final = Path(__file__).with_name("stand_in") / "bcc"
RECORDINGS: Final = "recordings"
MODULES: Final = "/modules"
_PROJECT: Final = "smtp-horizon"
_SHELLS: Final = ("bash", "sh")

_TREE: Final = ("monitor", "probes", "scripts", "tests/lab", "tests/kernels")
_UNWANTED: Final = ("test", "idlelib", "ensurepip", "lib2to3", "tkinter", "turtledemo")
"""Of Python's own library."""
_UNWANTED_FILES: Final = re.compile(r"^config-\d|\.opt-[12]\.pyc$")
_PROGRAMS: Final = ("ip", "ss", "ethtool", "openssl")
_LOADED_BY_NAME: Final = ("libbpf.so.1", "libseccomp.so.2", "libgcc_s.so.1", "libnss_files.so.2")
_BCC: Final = "libbcc.so.0"
_ETC: Final = (
    *("passwd", "group", "nsswitch.conf", "services", "protocols", "hosts", "ld.so.cache", "localtime"),
    *("gnutls", "os-release"),
)
_FOLDERS: Final = (
    *("dev", "proc", "sys", "run", "root"),
    *("var/lib", "var/spool", "var/log", "usr/bin", "usr/sbin"),
)
_APPLETS: Final = (
    *("cat", "chmod", "chroot", "echo", "env", "grep", "hostname", "insmod", "kill", "ls", "mkdir", "mount"),
    *("poweroff", "ps", "rm", "sed", "sleep", "stty", "tail", "umount", "uname"),
)
"""Of busybox."""
_SERVERS: Final = {
    POSTFIX_ROOT: ("usr/lib/postfix/**/*", "usr/sbin/post*", "usr/sbin/smtp-source"),
    SERVERS_ROOT: ("usr/sbin/exim4",),
}
"""The roots that the lab runs its servers in, and what of them is needed here."""
_LINKED: Final = ("bin", "sbin", "lib", "lib64")
_LINKER: Final = "/lib64/ld-linux-x86-64.so.2"
_NEEDED: Final = ("veth", "8021q")
"""Modules of the kernel. This project's lab needs the one, the check of tags the other."""

_INIT: Final = """\
#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME={home} LC_ALL=C PYTHONUNBUFFERED=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm /dev/pts; mount -t tmpfs tmp /dev/shm; mount -t devpts pts /dev/pts; mount -t tmpfs run /run
stty -F {results} raw
hostname watched.test
ip link set lo up
for module in {modules}; do insmod {folder}/$module || echo "insmod $module failed"; done
cd {root}
{python} -m tests.kernels.guest {results}
echo "the guest's check ended: $?"
poweroff -f
"""


def write_root(archive: Archive, kernel: Kernel, recorded: Path | None, results: str) -> None:
    """`recorded`: what was compiled beforehand; None to have bcc with its compiler in it."""
    programs: list[Path] = []
    archive.folder("/tmp", 0o1777)
    archive.folder("/var/tmp", 0o1777)
    for folder in _FOLDERS:
        archive.folder(folder)
    for name in _LINKED:
        if Path("/", name).is_symlink():
            archive.link(name, str(Path("/", name).readlink()))
    archive.link("/var/run", "/run")
    for file in _python_files():
        archive.file(file)
        programs.append(file)
    for file in _program_files():
        archive.file(file)
        programs.append(file)
    _add_bcc(archive, recorded, programs)
    for root, patterns in _SERVERS.items():
        _add_server_root(archive, root, patterns)
    for folder in _TREE:
        archive.tree(ROOT / folder)
    for file in (*(ROOT / "tests").glob("*.py"), *ROOT.glob("*.so")):  # all compiled modules share one
        archive.file(file)
    for name in _ETC:
        path = Path("/etc", name)
        if path.is_dir():
            archive.tree(path)
        elif path.exists():
            archive.file(path)
    archive.file(busybox(), "/usr/bin/busybox")
    for applet in _APPLETS:
        archive.link(f"/usr/bin/{applet}", "busybox")
    for library in _libraries(
        [*programs, *(ROOT / "probes").rglob("*.so"), *(ROOT / "monitor").rglob("*.so")]
    ):
        archive.file(library)
    modules = kernel.modules(list(_NEEDED))
    for file, content in modules:
        archive.content(f"{MODULES}/{_plain_name(file)}", content)
    init = _INIT.format(
        home=Path.home(),
        results=results,
        modules=" ".join(_plain_name(file) for file, _ in modules),
        folder=MODULES,
        root=ROOT,
        python=sys.executable,
    )
    archive.text("/init", init, 0o755)


def _plain_name(module: Path) -> str:
    return module.name.removesuffix(".xz").removesuffix(".zst")


def _python_files() -> Iterator[Path]:
    """The interpreter, its library, the virtual environment with what the program needs, and Debian's
    modules."""
    yield Path(sys.executable)
    environment = Path(sys.prefix)
    yield environment / "pyvenv.cfg"
    yield environment / "bin" / _PROJECT
    library = Path(sysconfig.get_path("stdlib"))
    yield from _wanted(library)
    for name in _requirements(_PROJECT, set()):
        found = distribution(name)
        for file in found.files or []:
            path = Path(str(found.locate_file(file)))
            if path.is_file() and path.is_relative_to(environment / "lib"):
                yield path
    for name in ("seccomp", "netaddr"):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            yield from _wanted(origin.parent) if origin.name == "__init__.py" else [origin]


def _requirements(name: str, known: set[str]) -> set[str]:
    """The distribution and all that it needs at run time."""
    if name not in known:
        known.add(name)
        for line in distribution(name).requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                _requirements(requirement.name, known)
    return known


def _wanted(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name in _UNWANTED or _UNWANTED_FILES.search(entry.name) or entry.name.endswith("-packages"):
            continue
        if entry.is_dir():
            yield from _wanted(entry)
        elif entry.is_file():
            yield entry


def _program_files() -> Iterator[Path]:
    for name in (*_SHELLS, *_PROGRAMS):
        yield _found(name)
    said = subprocess.run(["openssl", "version", "-d"], capture_output=True, text=True, check=True).stdout
    yield Path(said.split('"')[1], "openssl.cnf")


def _add_server_root(archive: Archive, root: Path, patterns: Iterable[str]) -> None:
    """Those of its files, and the libraries that its own dynamic linker finds for them."""
    for name in ("dev", "etc", "proc", "tmp", "var"):
        archive.folder(str(root / name))
    for name in _LINKED:
        archive.link(str(root / name), str((root / name).readlink()))
    files = [file for pattern in patterns for file in root.glob(pattern) if file.is_file()]
    needed = {*files, root / _LINKER.strip("/")}
    for file in filter(_is_linked, files):
        command: list[str | Path] = ["chroot", root, _LINKER, "--list", Path("/", file.relative_to(root))]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        needed |= {root / path.strip("/") for path in re.findall(r" => (/\S+) \(0x", listed)}
    for file in needed:
        archive.file(file, root=root)


def _found(name: str) -> Path:
    for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        if (path := Path(folder, name)).exists():
            return path
    raise FileNotFoundError(f"there is no {name}, which the virtual machine needs")


def _add_bcc(archive: Archive, recorded: Path | None, programs: list[Path]) -> None:
    spec = find_spec("bcc")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("Python finds no bcc: apt-get install python3-bpfcc")
    where = Path(spec.origin).parent
    if recorded is None:
        archive.tree(where)
        programs.append(_library(_BCC))
        archive.file(_library(_BCC))
        for folder in _headers():
            archive.tree(folder)
        return
    for file in STAND_IN.glob("*.py"):
        archive.file(file, str(where / file.name))
    for file in recorded.glob("*.json"):
        if file.name != INDEX:
            archive.file(file, f"/{RECORDINGS}/{file.name}")


def _headers() -> Iterator[Path]:
    """Those of the kernel's interface, which the programs include (linux-libc-dev)."""
    triplet = sysconfig.get_config_var("MULTIARCH")
    yield from (
        Path("/usr/include/linux"),
        Path("/usr/include/asm-generic"),
        Path("/usr/include", triplet, "asm"),
    )


def _library(name: str) -> Path:
    """Where the dynamic linker finds it."""
    listed = subprocess.run(["/usr/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        if line.strip().startswith(f"{name} ("):
            return Path(line.rpartition(" => ")[2])
    raise FileNotFoundError(f"there is no {name}, which the virtual machine needs")


def _libraries(files: Iterable[Path]) -> set[Path]:
    """What these are linked with, and what is loaded by its name."""
    found = {_library(name) for name in _LOADED_BY_NAME}
    linked = [file for file in (*files, *found) if _is_linked(file)]
    listed = subprocess.run(["ldd", *linked], capture_output=True, text=True, check=False).stdout
    found |= {Path(path) for path in re.findall(r"(?:=> |^\t)(/\S+) \(0x", listed, re.MULTILINE)}
    return found


def _is_linked(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(4) == b"\x7fELF"
