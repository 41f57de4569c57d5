"""`smtp-horizon watch`: the options; what they do is in monitor.cli.watching."""

import logging
import os
from contextlib import closing
from typing import Any, Final

import click

from monitor.cli import service_manager, settings
from monitor.cli.main import CannotBegin, collect_garbage_from_here_on
from monitor.cli.opener import Opener
from monitor.cli.parameters import (
    ENVIRONMENT_PREFIX,
    ListenType,
    local_network_option,
    observer_options,
    ports_option,
)
from monitor.cli.service_manager import ServiceManager
from monitor.cli.users import CannotBecomeError, forget_groups, to_become
from monitor.rights import User
from probes import capabilities

NAME: Final = "smtp-horizon"
"""What `ps -o comm` shows, however Python was started."""
DEFAULT_LISTEN: Final = "127.0.0.1:9825"
DEFAULT_INTERFACE: Final = "any"  # a newcomer has mail on some interface, and rarely knows its name
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


def _load_config(context: click.Context, _: click.Parameter, path: str | None) -> str | None:
    if path is not None:
        context.default_map = settings.load(path, context)
    return path


@click.command(
    "watch",
    context_settings={"auto_envvar_prefix": ENVIRONMENT_PREFIX},
    epilog=(
        "\b\nExamples:\n"
        "  smtp-horizon watch\n"
        "  smtp-horizon watch --interface eth0 --interface eth1 --listen '[::]:9825'\n"
        "  smtp-horizon watch --records /var/log/smtp-horizon.jsonl --local-network 192.0.2.0/24\n"
        "  smtp-horizon watch --records - | jq 'select(.envelope == \"visible\")'\n"
        "  smtp-horizon watch --config /etc/smtp-horizon.toml\n"
        "  smtp-horizon watch --config /etc/smtp-horizon.toml --check"
    ),
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    is_eager=True,
    callback=_load_config,
    show_envvar=True,
    metavar="FILE.toml",
    help="Settings: the long options of this command as keys, without dashes in front. Flags and environment "
    "go before it.",
)
@click.option(
    "--interface",
    multiple=True,
    default=[DEFAULT_INTERFACE],
    show_default=True,
    show_envvar=True,
    metavar="NAME",
    help="Where to capture; any is all of them. May be repeated.",
)
@click.option(
    "--probe",
    type=click.Choice(["auto", "ebpf", "pyshark"]),
    default="auto",
    show_default=True,
    show_envvar=True,
    help="How to capture. auto: eBPF, else libpcap, else pyshark, which is dumpcap and tshark: they need "
    "no root, but the group wireshark.",
)
@click.option(
    "--listen",
    type=ListenType(),
    default=DEFAULT_LISTEN,
    show_default=True,
    show_envvar=True,
    help="Where to serve /metrics; an IPv6 address in brackets; port 0 is any free one.",
)
@click.option(
    "--records",
    metavar="PATH|-",
    show_envvar=True,
    help="Append a JSON record of each session to this file, or to standard output (-). SIGHUP reopens the "
    "file. [default: no records]",
)
@click.option(
    "--web-config",
    metavar="FILE.yml",
    show_envvar=True,
    help="TLS and passwords for /metrics: a web configuration file, as Prometheus' exporters have. SIGHUP "
    "reads it and its certificates anew. [default: plain HTTP, open to all]",
)
@ports_option
@local_network_option(
    "A network that is ours, beside this host's own addresses: it decides inbound or outbound. "
    "May be repeated."
)
@observer_options
@click.option(
    "--user",
    metavar="NAME",
    show_envvar=True,
    help="Whom to go on as once everything is open, when started as root; root to stay root. "
    "[default: smtp-horizon if there is one, else nobody]",
)
@click.option(
    "--tls-tap",
    is_flag=True,
    show_envvar=True,
    help="Read senders and recipients inside TLS, too, of mail servers on this machine that use OpenSSL or "
    "GnuTLS: by probes in these libraries. Never a message or a password. See doctor. [default: off]",
)
@click.option(
    "--check",
    is_flag=True,
    allow_from_autoenv=False,
    help="Say whether it could begin: try settings, files and privileges, a line for each problem, and exit. "
    "Captures nothing and makes no file.",
)
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default="info",
    show_default=True,
    show_envvar=True,
    help="What is worth a line on standard error.",
)
def command(
    *,
    config: str | None,
    interface: tuple[str, ...],
    probe: str,
    listen: tuple[str, int],
    records: str | None,
    web_config: str | None,
    user: str | None,
    tls_tap: bool,
    check: bool,
    log_level: str,
    **site: Any,
) -> int:
    """Watch live, serve metrics, write session records.

    Runs until SIGTERM, SIGINT (Ctrl-C), or the end of the capture, and then writes a record of every session
    that is still open. Needs the privilege to capture: see doctor.
    """
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s",
        level=logging.getLevelNamesMapping()[log_level.upper()],
    )
    del config  # its callback has read it
    _refuse_one_file_for_two(records, site["simulate_state"])
    capabilities.set_name(NAME)
    whom = _user(user)
    told_at = service_manager.taken_from()
    # Before all that is imported for watching: it needs none of it.
    with Opener.start(whom) as opener:
        # Imported here so that --help doesn't load a web server.
        from monitor.cli.observers import SiteOptions  # noqa: PLC0415
        from monitor.cli.watching import Watching, WatchSettings  # noqa: PLC0415

        collect_garbage_from_here_on()
        watch_settings = WatchSettings(
            interface, probe, listen, records, web_config, whom, tls_tap, SiteOptions(**site)
        )
        if check:
            from monitor.cli.checking import check as try_all  # noqa: PLC0415

            return try_all(watch_settings, opener)
        with (
            closing(ServiceManager.named(told_at)) as manager,
            Watching(watch_settings, opener, manager) as watching,
        ):
            return watching.run()


def _refuse_one_file_for_two(records: str | None, state: str | None) -> None:
    """Records would be appended to SQLite's database."""
    if records is not None and state is not None and os.path.realpath(records) == os.path.realpath(state):
        raise CannotBegin("--records and --simulate-state name the same file; name another with one of them")


def _user(name: str | None) -> User:
    try:
        user = to_become(name)
    except CannotBecomeError as error:
        raise CannotBegin(str(error)) from error
    forget_groups()
    return user
