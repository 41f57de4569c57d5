"""Fetches what the lab needs of Debian 12 or 13: `python -m tests.lab.packages`, as root.

Quick when nothing is missing. Mail servers, and what else is a service, are unpacked into a cache folder and
never installed. Plain tools are installed, by scripts/add-packages, which changes nothing else here.
"""

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

from tests.lab.debian_root import CACHE, LabUnavailableError, make_roots, release

__all__ = ("POSTFIX_ROOT", "SERVERS_ROOT", "LabUnavailableError", "ensure")

_ADD: Final = Path(__file__).parents[2] / "scripts/add-packages"

POSTFIX_ROOT: Final = CACHE / release() / "postfix"
"""Of the demonstration, too: so Postfix is alone in it."""
_SERVERS: Final = (
    *("exim4-daemon-light", "opensmtpd", "sendmail-bin", "chasquid", "postgrey", "prometheus"),
    *("systemd", "e2fsprogs"),  # tools of theirs, see `unpacked.tool`
)
# Another list makes another root: tests of an earlier version may run in the one that is there.
SERVERS_ROOT: Final = CACHE / release() / f"servers-{sha256(' '.join(_SERVERS).encode()).hexdigest()[:8]}"
ROOTS: Final = {POSTFIX_ROOT: ("postfix",), SERVERS_ROOT: _SERVERS}

# What each program that is installed belongs to.
PROGRAMS: Final = {
    "/usr/bin/swaks": "swaks",
    "/usr/bin/curl": "curl",
    "/usr/bin/tcpdump": "tcpdump",
    "/usr/bin/ndpiReader": "libndpi-bin",
    "/usr/sbin/trafgen": "netsniff-ng",
    "/usr/bin/tcpreplay": "tcpreplay",
    "/usr/bin/tshark": "tshark",
    "/usr/bin/openssl": "openssl",
    "/usr/sbin/ip": "iproute2",
    "/usr/bin/ss": "iproute2",
    "/usr/sbin/ethtool": "ethtool",
    "/usr/sbin/setcap": "libcap2-bin",
    "/usr/sbin/bpftool": "bpftool",
    "/usr/bin/jq": "jq",
    "/etc/protocols": "netbase",  # swaks asks there for the number of TCP
    "/usr/sbin/debootstrap": "debootstrap",
    "/usr/bin/tcpserver": "ucspi-tcp",
    "/usr/bin/tcprules": "ucspi-tcp",
    "/usr/bin/recordio": "ucspi-tcp",
}
_FOR_DEMONSTRATION: Final = ("/usr/bin/openssl", "/usr/sbin/ip", "/usr/bin/ss")
# What swaks needs for TLS and IPv6.
PERL_MODULES: Final = {"Net::SSLeay": "libnet-ssleay-perl", "IO::Socket::INET6": "libio-socket-inet6-perl"}


def _packages_missing(*, demonstration: bool) -> list[str]:
    programs = _FOR_DEMONSTRATION if demonstration else PROGRAMS
    wanted = {PROGRAMS[program] for program in programs if not Path(program).exists()}
    if not demonstration:
        wanted |= {package for module, package in PERL_MODULES.items() if not _perl_finds(module)}
    return sorted(wanted)


def _perl_finds(module: str) -> bool:
    return (
        subprocess.run(["perl", f"-M{module}", "-e", "1"], capture_output=True, check=False).returncode == 0
    )


def ensure(*, demonstration: bool = False) -> None:
    """Installs and unpacks what is missing. A demonstration needs little. Raises LabUnavailableError."""
    packages = _packages_missing(demonstration=demonstration)
    roots = {POSTFIX_ROOT: ROOTS[POSTFIX_ROOT]} if demonstration else ROOTS
    if os.geteuid() != 0:
        lacking = packages + [name for root in roots if not root.exists() for name in roots[root]]
        if lacking:
            raise LabUnavailableError(f"missing: {' '.join(lacking)}; needs root")
        return
    try:
        if packages:
            install(packages)
        make_roots((release(),), roots)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LabUnavailableError(str(error)) from error


def install(packages: list[str]) -> None:
    """On this machine, where nothing else changes by it. Raises LabUnavailableError."""
    if shutil.which("apt-get") is None:
        raise LabUnavailableError(f"missing: {' '.join(packages)}; and there is no apt-get to install them")
    added = subprocess.run([_ADD, *packages], stderr=subprocess.PIPE, text=True, check=False)
    if added.returncode != 0:
        raise LabUnavailableError(added.stderr.strip())


def main() -> int:
    try:
        ensure(demonstration="--demonstration" in sys.argv[1:])
    except LabUnavailableError as reason:
        print(f"the lab can't run here: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
