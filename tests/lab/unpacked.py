"""Runs a mail server that was only unpacked (`debian_root.py`) as if it were installed: what it was unpacked
into is its root, and there /etc and /var are folders of the lab's, with the users that the server expects.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from tests.lab.network import Namespace
from tests.lab.packages import SERVERS_ROOT

# Numbers that no Debian system gives to anybody: these users exist nowhere but inside.
FIRST_USER: Final = 60_901
_ETC_FILES: Final = {
    "nsswitch.conf": "".join(
        f"{database}: files\n" for database in ("passwd", "group", "services", "protocols")
    )
    + "hosts: files dns\n",
    "services": "domain 53/tcp\ndomain 53/udp\nsmtp 25/tcp\nsubmissions 465/tcp smtps\nsubmission 587/tcp\n",
    "protocols": "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6 41 IPv6\n",
    "hosts": "127.0.0.1 localhost\n",
    # Nothing answers there, and at once: no server waits for names.
    "resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
}
_WITH_USR: Final = 'mount --bind "$0/usr" /usr && exec "$@"'


def prepare_root(
    folder: Path, users: Sequence[str], etc_files: Mapping[str, str], homes: Mapping[str, str]
) -> dict[str, int]:
    """Makes folder/etc and folder/var; returns the users' numbers, which are their groups' too."""
    etc, var = folder / "etc", folder / "var"
    etc.mkdir(parents=True)
    var.mkdir()
    if Path("/etc/localtime").exists():  # logs are read with the times of this machine
        shutil.copy("/etc/localtime", etc)
    numbers = {user: FIRST_USER + offset for offset, user in enumerate(users)}
    entries = ["root:x:0:0:root:/root:/bin/sh", "mail:x:8:8:mail:/var/mail:/bin/false"]
    groups = ["root:x:0:", "mail:x:8:"]
    nobody = pwd.getpwnam("nobody")
    entries.append(f"nobody:x:{nobody.pw_uid}:{nobody.pw_gid}:nobody:/nonexistent:/bin/false")
    groups.append(f"nogroup:x:{nobody.pw_gid}:")
    for user, number in numbers.items():
        entries.append(f"{user}:x:{number}:{number}::{homes.get(user, '/nonexistent')}:/bin/false")
        groups.append(f"{user}:x:{number}:")
    files = {
        "passwd": "\n".join(entries) + "\n",
        "group": "\n".join(groups) + "\n",
        **_ETC_FILES,
        **etc_files,
    }
    for name, text in files.items():
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text(text)
    return numbers


def tool(name: str) -> list[str]:
    """The first words of a command that runs a tool of a package that has services, too.

    It is the machine's own, as almost every machine has it; else that of the lab's root, with the /usr there
    in place of the machine's: all other files are the machine's. That needs root.
    """
    if shutil.which(name) is not None:
        return [name]
    return ["unshare", "--mount", "sh", "-c", _WITH_USR, str(SERVERS_ROOT), name]


def launch_unpacked(
    namespace: Namespace,
    folder: Path,
    command: Sequence[str | Path],
    root: Path,
    *,
    output: IO[Any] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """`root`: of `debian_root.py`; the command's, with the folder's etc and var in it."""
    return namespace.start(inside(folder, command, root), output=output, env=dict(os.environ, LC_ALL="C"))


def run_unpacked(
    namespace: Namespace, folder: Path, command: Sequence[str | Path], root: Path, *, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    return namespace.run(inside(folder, command, root), input=given, env=dict(os.environ, LC_ALL="C"))


def inside(folder: Path, command: Sequence[str | Path], root: Path) -> list[str | Path]:
    """The command as a namespace has to run it, for it to have that root with the folder's etc and var."""
    return with_mounts(folder, ["chroot", root, *command], root)


def with_mounts(folder: Path, command: Sequence[str | Path], root: Path) -> list[str | Path]:
    """For a command that runs programs in that root by "chroot", and others not."""
    # "ip netns exec" already gave the process a mount namespace of its own.
    mounts = [(folder / name, root / name) for name in ("etc", "var")]
    mounts += [(Path("/", name), root / name) for name in ("dev", "proc")]
    script = "".join(f'mount --rbind "{there}" "{here}" && ' for there, here in mounts)
    return ["sh", "-c", script + 'exec "$@"', "sh", *command]
