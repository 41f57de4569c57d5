"""Fetches what the lab needs on Debian 12: `python -m tests.lab.packages`, as root.

Quick when nothing is missing. Only one mail server package can be installed at a time, so Postfix is
installed (never started, never configured: the lab runs it from folders of its own), and Exim, OpenSMTPD,
sendmail and chasquid are only unpacked into a cache folder. postgrey is installed and not started either.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "smtp-horizon-lab"

# What each program or file belongs to.
PROGRAMS: Final = {
    "/usr/sbin/postfix": "postfix",
    "/usr/bin/swaks": "swaks",
    "/usr/bin/tcpdump": "tcpdump",
    "/usr/bin/ndpiReader": "libndpi-bin",
    "/usr/sbin/trafgen": "netsniff-ng",
    "/usr/bin/tcpreplay": "tcpreplay",
    "/usr/bin/tshark": "tshark",
    "/usr/bin/openssl": "openssl",
    "/usr/bin/prometheus": "prometheus",
    "/usr/bin/promtool": "prometheus",
    "/usr/sbin/ip": "iproute2",
    "/usr/bin/ss": "iproute2",
    "/usr/sbin/ethtool": "ethtool",
    "/usr/sbin/setcap": "libcap2-bin",
    "/usr/bin/systemd-analyze": "systemd",
    "/usr/sbin/bpftool": "bpftool",
    "/usr/bin/jq": "jq",
    "/usr/bin/tcpserver": "ucspi-tcp",
    "/usr/bin/tcprules": "ucspi-tcp",
    "/usr/bin/recordio": "ucspi-tcp",
    "/usr/sbin/postgrey": "postgrey",
    "/usr/sbin/mkfs.ext4": "e2fsprogs",
}
# What swaks needs for TLS and IPv6.
PERL_MODULES: Final = {"Net::SSLeay": "libnet-ssleay-perl", "IO::Socket::INET6": "libio-socket-inet6-perl"}
# What the unpacked servers are linked with, and Debian 12 may lack.
LIBRARIES: Final = {
    "libidn.so.12": "libidn12",
    "libgnutls-dane.so.0": "libgnutls-dane0",
    "libnsl.so.2": "libnsl2",
    "libpcre2-8.so.0": "libpcre2-8-0",
    "libdb-5.3.so": "libdb5.3",
    "libevent-2.1.so.7": "libevent-2.1-7",
    "libwrap.so.0": "libwrap0",
}
EXIM: Final = CACHE / "exim4-daemon-light"
OPENSMTPD: Final = CACHE / "opensmtpd"
SENDMAIL: Final = CACHE / "sendmail-bin"
CHASQUID: Final = CACHE / "chasquid"
UNPACKED: Final = {
    EXIM: EXIM / "usr/sbin/exim4",
    OPENSMTPD: OPENSMTPD / "usr/sbin/smtpd",
    SENDMAIL: SENDMAIL / "usr/libexec/sendmail/sendmail",
    CHASQUID: CHASQUID / "usr/bin/chasquid",
}


class LabUnavailableError(Exception):
    """The lab can't run here; the message says why and what to do."""


def missing(*, demonstration: bool = False) -> tuple[list[str], list[Path]]:
    """Packages to install, and folders of packages to unpack. A demonstration needs Postfix alone."""
    programs = [
        program
        for program in PROGRAMS
        if not demonstration or PROGRAMS[program] in ("postfix", "openssl", "iproute2")
    ]
    wanted = {PROGRAMS[program] for program in programs if not Path(program).exists()}
    if demonstration:
        return sorted(wanted), []
    known = subprocess.run(["/usr/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    wanted |= {package for library, package in LIBRARIES.items() if f"\t{library} " not in known}
    wanted |= {package for module, package in PERL_MODULES.items() if not _perl_finds(module)}
    return sorted(wanted), [folder for folder, program in UNPACKED.items() if not program.exists()]


def _perl_finds(module: str) -> bool:
    return (
        subprocess.run(["perl", f"-M{module}", "-e", "1"], capture_output=True, check=False).returncode == 0
    )


def ensure(*, demonstration: bool = False) -> None:
    """Installs and unpacks what is missing; raises LabUnavailableError."""
    packages, folders = missing(demonstration=demonstration)
    if not packages and not folders:
        return
    if os.geteuid() != 0:
        raise LabUnavailableError(
            f"missing: {' '.join(packages + [folder.name for folder in folders])}; needs root"
        )
    if shutil.which("apt-get") is None:
        raise LabUnavailableError(f"missing: {' '.join(packages)}; and there is no apt-get to install them")
    try:
        if not _fetch(packages, folders):
            # A fresh machine has no package lists yet, an old one has stale ones.
            apt("update")
            if not _fetch(packages, folders):
                raise LabUnavailableError("apt-get could not install or download: " + " ".join(packages))
    except OSError as error:
        raise LabUnavailableError(str(error)) from error


def _fetch(packages: list[str], folders: list[Path]) -> bool:
    return (not packages or _install(packages)) and all(_unpack(folder) for folder in folders)


def _install(packages: list[str]) -> bool:
    if "postfix" in packages:
        subprocess.run(
            ["debconf-set-selections"],
            input="postfix postfix/main_mailer_type select No configuration\n",
            text=True,
            check=True,
        )
    # Asked by every package before it starts a service; 101: don't. Only for the time of this installation.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        return apt("install", "--yes", "--no-install-recommends", *packages)
    finally:
        if ours:
            policy.unlink()


def _unpack(folder: Path) -> bool:
    with tempfile.TemporaryDirectory() as downloads:
        if not apt("download", folder.name, folder=downloads):
            return False
        folder.mkdir(parents=True, exist_ok=True)
        (package,) = Path(downloads).glob("*.deb")
        subprocess.run(["dpkg", "--extract", str(package), str(folder)], check=True)
    return True


def apt(*arguments: str, folder: str | None = None) -> bool:
    """Runs apt-get; says what it complains of."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    finished = subprocess.run(
        ["apt-get", "-q", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        print(finished.stderr.strip(), file=sys.stderr)
    return finished.returncode == 0


def main() -> int:
    try:
        ensure(demonstration="--demonstration" in sys.argv[1:])
    except LabUnavailableError as reason:
        print(f"the lab can't run here: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
