"""What the text of an option means, and what is wrong with it if it means nothing."""

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import Any, Final

import click
from msgspec import Struct

from monitor.greylisters.placement import TlsEnds
from monitor.metrics.countries import DEFAULT_SLOTS, SLOTS_MAX
from monitor.simulation.tallies import Greylister

ENVIRONMENT_PREFIX: Final = "SMTP_HORIZON"

DEFAULT_PORTS: Final = "25,465,587"
"""SMTP (RFC 5321), submission with implicit TLS (RFC 8314) and with STARTTLS (RFC 6409)."""

PORT_MAX: Final = 65_535


class PortsType(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """`25,587,465`, or in a TOML file also a list of numbers -> frozenset[int]."""

    name = "ports"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "PORT,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[int]:
        if isinstance(value, frozenset):
            return value
        parts = value.split(",") if isinstance(value, str) else value
        return frozenset(self._port(part, param, ctx) for part in parts)

    def _port(self, part: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        port = int(part) if str(part).strip().isascii() and str(part).strip().isdigit() else 0
        if not 1 <= port <= PORT_MAX:
            self.fail(f"{str(part)!r} is no port: give numbers from 1 to {PORT_MAX}, as 25,587", param, ctx)
        return port


class NetworkType(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """`192.0.2.0/24`, `2001:db8::/32` or one address -> ip_network."""

    name = "network"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "NET"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> IPv4Network | IPv6Network:
        if isinstance(value, IPv4Network | IPv6Network):
            return value
        try:
            network = ip_interface(value).network
        except ValueError:
            self.fail(f"{value!r} is no network: give it as 192.0.2.0/24 or 2001:db8::/32", param, ctx)
        try:
            return ip_network(value)
        except ValueError:
            self.fail(f"{value!r} is an address inside a network: did you mean {network}?", param, ctx)


class Countries(Struct, frozen=True):
    """Which countries have a label of their own: see CountrySlots."""

    limit: int
    fixed: tuple[str, ...] = ()


class CountriesType(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """`20`, or `DE,FR,US`, or in a TOML file also a number or a list of codes -> Countries."""

    name = "countries"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "N|CC,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Countries:
        if isinstance(value, Countries):
            return value
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        if text.isascii() and text.isdigit() and len(text) <= len(str(SLOTS_MAX)) and int(text) <= SLOTS_MAX:
            return Countries(int(text))
        codes = tuple(dict.fromkeys(code.strip().upper() for code in text.split(",")))
        if not all(re.fullmatch("[A-Z]{2}", code) for code in codes):
            self.fail(
                f"{text!r}: give a number up to {SLOTS_MAX}, or codes of countries, as DE,FR,US", param, ctx
            )
        return Countries(len(codes), codes)


class ListenType(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """`127.0.0.1:9825`, `[::1]:9825`, `name:0` -> (host, port)."""

    name = "listen"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "HOST:PORT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = value.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            self.fail(f"{value!r}: an IPv6 address stands in brackets, as [::1]:9825", param, ctx)
        if not host:
            self.fail(f"{value!r} names no address: give HOST:PORT, as 127.0.0.1:9825", param, ctx)
        if not (port.isascii() and port.isdigit() and int(port) <= PORT_MAX):
            self.fail(f"{value!r}: the port is a number from 0 (any free one) to {PORT_MAX}", param, ctx)
        return host, int(port)


Decorated = Callable[..., Any]


def ports_option(command: Decorated) -> Decorated:
    return click.option(
        "--ports",
        type=PortsType(),
        default=DEFAULT_PORTS,
        show_default=True,
        show_envvar=True,
        help="TCP ports on which SMTP is spoken.",
    )(command)


def local_network_option(help_text: str) -> Callable[[Decorated], Decorated]:
    return click.option(
        "--local-network", type=NetworkType(), multiple=True, show_envvar=True, help=help_text
    )


def observer_options(command: Decorated) -> Decorated:
    """What else is to be known of the site: monitor.cli.observers.SiteOptions has them all."""
    options = (
        click.option(
            "--tls-ends",
            type=click.Choice([choice.value for choice in TlsEnds]),
            default=TlsEnds.SERVER.value,
            show_default=True,
            show_envvar=True,
            help="Where TLS ends, seen from a greylister: in the mail server behind it, on the same socket "
            "by UCSPI-TLS, or in a proxy before it. It decides what the greylister can read.",
        ),
        click.option(
            "--simulate",
            type=click.Choice([choice.value for choice in Greylister]),
            multiple=True,
            show_envvar=True,
            help="Keep the table that this greylister would have, and count what it would decide. May be "
            "repeated.",
        ),
        click.option(
            "--simulate-state",
            metavar="PATH",
            show_envvar=True,
            help="Keep that table in this file, so that it outlives the program; its key goes to PATH.key. "
            "[default: in memory]",
        ),
        click.option(
            "--simulate-delay",
            type=click.IntRange(min=1),
            show_envvar=True,
            metavar="SECONDS",
            help="How long the simulated postgrey puts a triplet off. [default: 300, as the program]",
        ),
        click.option(
            "--geoip",
            multiple=True,
            show_envvar=True,
            metavar="FILE.mmdb",
            help="A database of where addresses are (MaxMind's format): country and AS for records, country "
            "for metrics. May be repeated, as country and AS are often apart. None comes with smtp-horizon.",
        ),
        click.option(
            "--countries",
            type=CountriesType(),
            default=str(DEFAULT_SLOTS),
            show_default=True,
            show_envvar=True,
            help="How many countries have a metric label of their own, the first that come; or which.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
