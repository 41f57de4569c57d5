"""`smtp-horizon doctor`: what this machine can do, and the exact command that mends the rest.

Every answer is found by trying: the eBPF program is loaded, a packet socket is opened, sockets that listen
are looked up, and who holds them.
"""

import os
import platform
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from shutil import which
from typing import Final

import click

from monitor import streams
from monitor.cli.main import DONE, FAILED
from monitor.cli.parameters import ENVIRONMENT_PREFIX, ports_option
from monitor.cli.system_calls import why_unavailable as why_no_filter
from monitor.cli.tapping import why_unavailable as tap_unavailable
from monitor.cli.users import NOBODY, USER, CannotBecomeError, current, to_become
from monitor.rights import ROOT
from probes import isolation
from probes.ebpf.program import tried as tried_filter
from probes.probe import FilterVariant, ProbeUnavailable
from probes.tls_tap.elf import NoUsableElfError
from probes.tls_tap.hooks import Kind
from probes.tls_tap.libraries import tls_functions
from probes.tls_tap.mapped import TlsLibrary, open_library
from probes.tls_tap.servers import MailServers, mail_servers
from probes.tshark.probe import why_unavailable as tshark_unavailable
from probes.tshark.programs import tshark_version

MAIL_SERVERS: Final = {
    "postfix": "Postfix",
    "exim4": "Exim",
    "exim": "Exim",
    "smtpd": "OpenSMTPD",
    "chasquid": "chasquid",
    "maddy": "Maddy",
    "stalwart": "Stalwart",
}
"""Programs by which a mail server is known. Not `sendmail`: each of them brings one of that name."""

TLS_LIBRARIES: Final = ("ssl", "gnutls")
"""OpenSSL's and GnuTLS' shared libraries, libssl.so and libgnutls.so."""

LDCONFIG: Final = "/sbin/ldconfig"

LIBRARY_KINDS: Final = {Kind.OPENSSL: "OpenSSL", Kind.GNUTLS: "GnuTLS"}


class State(StrEnum):
    FINE = "ok"
    MISSING = "missing"
    NOTE = "note"
    """Neither good nor bad."""


@dataclass(frozen=True, slots=True)
class Finding:
    state: State
    what: str
    said: str
    remedy: str | None = None
    """The command that mends it."""


@click.command(
    "doctor",
    context_settings={"auto_envvar_prefix": ENVIRONMENT_PREFIX},
    epilog="\b\nExamples:\n  smtp-horizon doctor\n  sudo smtp-horizon doctor --ports 25,2525",
)
@ports_option
def command(ports: frozenset[int]) -> int:
    """Say what this machine can do, and how to mend the rest.

    Exit status 0 if watch can run here, as this user; 1 if not.
    """
    can_watch, findings = diagnose(ports)
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        click.echo(f"{finding.state:<8} {finding.what:<{width}}  {finding.said}")
        if finding.remedy:
            click.echo(f"{'':<8} {'':<{width}}  mend it: {finding.remedy}")
    click.echo()
    if can_watch:
        click.echo("smtp-horizon watch can run here.")
        return DONE
    click.echo("smtp-horizon watch cannot run here as this user; smtp-horizon read can.")
    return FAILED


def diagnose(ports: frozenset[int]) -> tuple[bool, list[Finding]]:
    """Whether `watch` can run, and all there is to say."""
    live = (_ebpf(), _libpcap(), _pyshark())
    privileges = _privileges()
    can_watch = any(finding.state is State.FINE for finding in live) and privileges.state is not State.MISSING
    servers = mail_servers(ports)
    mail = [*_mail_servers(ports, servers), _tls_library(servers), *_tls_tap(servers)]
    findings = [_system(), _program(), *live, privileges, _system_calls(), _capture_files(), _tshark(), *mail]
    return can_watch, findings


def _system() -> Finding:
    kernel = f"{platform.system()} {platform.release()} on {platform.machine()}"
    return Finding(State.NOTE, "system", f"{kernel}, Python {platform.python_version()}")


def _program() -> Finding:
    kind = "pure Python" if Path(streams.__file__).suffix == ".py" else "compiled"
    return Finding(State.NOTE, "smtp-horizon", f"{version('smtp-horizon')}, {kind}")


def _ebpf() -> Finding:
    what = "live capture, eBPF"
    try:
        variant, why_not_full = tried_filter()
    except ProbeUnavailable as reason:
        return Finding(State.MISSING, what, *_split(reason))
    said = f"the {variant} filter loads, and attaches to a packet socket"
    if not why_not_full:
        return Finding(State.FINE, what, said)
    costs = "it hands up what nobody needs as well, and costs more"
    remedy = None
    if variant is FilterVariant.PLAIN_WITHOUT_PERFMON:
        remedy = "run it as root, or grant CAP_PERFMON (systemd: AmbientCapabilities=)"
    return Finding(State.FINE, what, f"{said}; not the full one ({why_not_full}): {costs}", remedy)


def _split(reason: ProbeUnavailable) -> tuple[str, str]:
    """What is wrong, and what mends it, which the exception's text holds together."""
    return str(reason).removesuffix(f"; {reason.remedy}"), reason.remedy


def _libpcap() -> Finding:
    """What libpcap does first: a packet socket."""
    what = "live capture, libpcap"
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except PermissionError:
        return Finding(State.MISSING, what, "no privilege: CAP_NET_RAW is missing", "sudo smtp-horizon watch")
    except OSError as error:
        return Finding(State.MISSING, what, f"no packet socket: {error.strerror}", "modprobe af_packet")
    return Finding(State.FINE, what, "a packet socket opens")


def _pyshark() -> Finding:
    what = "live capture, pyshark"
    reason = tshark_unavailable()
    if reason is None:
        return Finding(State.FINE, what, "dumpcap captures")
    return Finding(State.MISSING, what, *_split(reason))


def _privileges() -> Finding:
    """Whom `watch` goes on as."""
    what = "privileges"
    try:
        user = to_become(None)
    except CannotBecomeError as error:
        said, _, remedy = str(error).partition("; ")
        return Finding(State.MISSING, what, said, remedy)
    said = f"watch goes on as {user.name}, and gives up those that its probe can do without"
    if user.name == NOBODY and current().uid == ROOT:
        makes_own = f"adduser --system --group --no-create-home {USER}"
        return Finding(State.NOTE, what, f"{said}; a user of its own is better", makes_own)
    return Finding(State.FINE, what, said)


def _system_calls() -> Finding:
    what = "system calls"
    missing = why_no_filter()
    if missing is None:
        return Finding(State.FINE, what, "watch filters its own, through libseccomp")
    said, _, remedy = missing.partition("; ")
    return Finding(State.MISSING, what, f"{said}: watch goes on without a filter", remedy)


def _capture_files() -> Finding:
    what = "capture files"
    try:
        import pcapy  # noqa: F401, PLC0415 - its absence is a finding
    except ImportError as error:
        return Finding(State.MISSING, what, str(error), "pip install pcapy-ng")
    return Finding(State.FINE, what, f"libpcap through pcapy-ng {version('pcapy-ng')}")


def _tshark() -> Finding:
    try:
        path = isolation.program("tshark")
        if path is None:
            said = "not installed; needed for the pyshark probe alone"
            return Finding(State.MISSING, "tshark", said, "apt-get install tshark")
        return Finding(State.FINE, "tshark", f"{tshark_version(path)}, {path}")
    except ProbeUnavailable as reason:
        return Finding(State.MISSING, "tshark", *_split(reason))


def _mail_servers(ports: frozenset[int], servers: MailServers) -> Iterator[Finding]:
    for server in servers.seen:
        where = ", in another network namespace" if server.is_elsewhere else ""
        for port in sorted(server.ports):
            said = f"{server.name} listens (process {server.pid}){where}"
            yield Finding(State.FINE, f"port {port}", said)
    for port in sorted(servers.unseen):
        remedy = "sudo smtp-horizon doctor"
        yield Finding(State.FINE, f"port {port}", "something listens; root may see what", remedy)
    installed = sorted({name for program, name in MAIL_SERVERS.items() if _is_installed(program)})
    if installed:
        yield Finding(State.FINE, "mail server", f"{', '.join(installed)} installed")
    if not any(servers):
        numbers = ", ".join(map(str, sorted(ports)))
        said = f"nothing listens on {numbers} here; mail that passes by or leaves is seen all the same"
        yield Finding(State.NOTE, "mail server", said)


def _is_installed(program: str) -> bool:
    """System programs are often outside a user's path."""
    return which(program) is not None or which(program, path="/usr/sbin:/usr/local/sbin:/sbin") is not None


def _tls_library(servers: MailServers) -> Finding:
    """Those which the mail servers have mapped, or else those of the system."""
    mapped = {library.name for server in servers.seen for library in server.mapped.values()}
    if mapped:
        return Finding(State.FINE, "TLS library", f"{', '.join(sorted(mapped))}, in use by the mail server")
    names = _installed_libraries()
    if names:
        said = f"{', '.join(names)} installed; no mail server that listens has it loaded"
        return Finding(State.NOTE, "TLS library", said)
    return Finding(State.NOTE, "TLS library", "neither libssl nor GnuTLS is installed")


def _installed_libraries() -> list[str]:
    """Not by ctypes.util.find_library: where ldconfig knows none, that runs the first `gcc` on PATH."""
    try:
        said = subprocess.run(  # noqa: S603  a constant
            [LDCONFIG, "-p"],
            capture_output=True,
            check=False,
            cwd=isolation.FOLDER,
            env=isolation.ENVIRONMENT,
        ).stdout.decode(errors="replace")
    except OSError:  # another C library than glibc
        return []
    found = (re.search(rf"^\s*(lib{name}\.so\S*) ", said, re.MULTILINE) for name in TLS_LIBRARIES)
    return [library[1] for library in found if library]


def _tls_tap(servers: MailServers) -> Iterator[Finding]:
    """Nobody needs it who does not ask for it: whether `watch` can run is another question."""
    what = "TLS tap"
    reason = tap_unavailable()
    if reason is None:
        yield Finding(State.FINE, what, "watch --tls-tap can run here")
    else:
        said, remedy = _split(reason)
        yield Finding(State.MISSING, what, f"{said}; needed for --tls-tap alone", remedy)
    for server in servers.seen:
        who = f"{server.name} (port {', '.join(map(str, sorted(server.ports)))})"
        if server.why_out_of_reach is not None:
            yield Finding(State.NOTE, what, f"{who} {server.why_out_of_reach}")
        for library in server.mapped.values():
            yield _within_reach(f"{who} uses", library, State.FINE)
        for library in server.installed.values():
            yield _within_reach(f"{who} may come to use", library, State.NOTE)


def _within_reach(who_uses: str, library: TlsLibrary, state: State) -> Finding:
    name = f"{library.name}, removed or replaced since" if library.is_deleted else library.name
    try:
        descriptor = open_library(library)
        try:
            kind = LIBRARY_KINDS[tls_functions(descriptor).kind]
        finally:
            os.close(descriptor)
    except (OSError, NoUsableElfError) as error:
        return Finding(State.NOTE, "TLS tap", f"{who_uses} {name}: out of reach, {error}")
    return Finding(state, "TLS tap", f"{who_uses} {name} ({kind}): within reach")
