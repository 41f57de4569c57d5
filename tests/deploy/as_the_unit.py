"""Runs a program as deploy/smtp-horizon.service would have it run, as far as that goes without systemd:

    unshare --mount --pid --fork python -m tests.deploy.as_the_unit PROGRAM ARGUMENT...
    unshare --mount python -m tests.deploy.as_the_unit tls_tap PROGRAM ARGUMENT...

as root; the second with the drop-in for --tls-tap, which wants the processes of the host, as services have
them. It is another user, nobody, with the unit's ambient capabilities and bounding set; may make no memory
executable that it can write; sees of /proc what the unit says; and has the unit's list of system calls, in
systemd's own words.
"""

import ctypes
import errno
import os
import pwd
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from probes import capabilities
from probes.capabilities import Capability
from tests.lab.unpacked import tool

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/smtp-horizon.service"
DROP_IN = UNIT.with_name("smtp-horizon-tls-tap.conf")
TRACEFS = "/sys/kernel/tracing"
_ASIDE = "/mnt"  # every Debian has it, empty
# linux/prctl.h: since Linux 6.3
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1


def directives(*drop_ins: Path) -> dict[str, list[str]]:
    """Of the section [Service], in their order; those of drop-ins come behind."""
    found = defaultdict(list)
    for file in (UNIT, *drop_ins):
        for line in file.read_text().partition("[Service]\n")[2].partition("\n[Install]")[0].splitlines():
            if line and not line.startswith("#"):
                key, _, value = line.partition("=")
                found[key].append(value)
    return found


def _calls_of(names: list[str]) -> set[str]:
    """Sets, which begin with @, are taken apart."""
    calls: set[str] = set()
    for name in names:
        if name.startswith("@"):
            command = [*tool("systemd-analyze"), "syscall-filter", name]
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[
                1:
            ]
            calls |= _calls_of([line.strip() for line in lines if line.strip() and "#" not in line])
        else:
            calls.add(name)
    return calls


def allowed_calls(directive: list[str]) -> set[str]:
    """systemd.exec(5): the first list says which way it goes, the next ones add and take away; some calls
    are always allowed."""
    allowed: set[str] = set()
    for value in directive:
        if value.startswith("~"):
            allowed -= _calls_of(value[1:].split())
        else:
            allowed |= _calls_of(value.split())
    return allowed | _calls_of(["@default"])


def _filter(allowed: set[str]) -> None:
    import seccomp  # noqa: PLC0415 - Debian's, and perhaps not there

    filtering = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for call in allowed:
        if seccomp.resolve_syscall(seccomp.Arch(), call) >= 0:
            filtering.add_rule(seccomp.ALLOW, call)
    filtering.load()


def _let_others_in(folder: Path) -> None:
    """The project may lie where root alone may go, and the unit's user has to read it: in this mount
    namespace the folder that is closed to him is open, and holds nothing else."""
    closed = next((above for above in reversed(folder.parents) if not above.stat().st_mode & 0o001), None)
    if closed is None:
        return
    subprocess.run(["mount", "--bind", folder, _ASIDE], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", closed], check=True)
    folder.mkdir(parents=True)
    subprocess.run(["mount", "--bind", _ASIDE, folder], check=True)
    subprocess.run(["umount", _ASIDE], check=True)


def main() -> None:
    is_tapping = sys.argv[1] == "tls_tap"
    command = sys.argv[2:] if is_tapping else sys.argv[1:]
    unit = directives(DROP_IN) if is_tapping else directives()
    # Before the project hides what lies beside it: systemd-analyze may be the lab's, which does.
    calls = allowed_calls(unit["SystemCallFilter"])
    _let_others_in(ROOT)
    os.chdir(ROOT)
    shown = unit["ProtectProc"][-1]
    if shown != "default":
        subprocess.run(["mount", "-t", "proc", "-o", f"hidepid={shown}", "proc", "/proc"], check=True)
    if is_tapping and not os.path.ismount(TRACEFS):
        subprocess.run(["mount", "-t", "tracefs", "none", TRACEFS], check=True)  # as systemd does at boot
    names = [name.removeprefix("CAP_") for name in " ".join(unit["AmbientCapabilities"]).split()]
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"]
    os.environ |= dict(setting.split("=", 1) for setting in unit["Environment"])
    nobody = pwd.getpwnam("nobody")
    capabilities.stay_permitted_as_another_user()
    os.setgroups([])
    os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
    os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
    capabilities.keep_only([Capability[name] for name in names], for_programs=True)
    capabilities.forbid_new_privileges()
    ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
    _filter(calls)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
