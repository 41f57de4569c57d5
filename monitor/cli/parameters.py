"""What the text of an option means, and what is wrong with it if it means nothing."""

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import Any, Final

import click

from monitor.greylisters.placement import TlsEnds

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


def tls_ends_option(command: Decorated) -> Decorated:
    return click.option(
        "--tls-ends",
        type=click.Choice([choice.value for choice in TlsEnds]),
        default=TlsEnds.SERVER.value,
        show_default=True,
        show_envvar=True,
        help="Where TLS ends, seen from a greylister: in the mail server behind it, on the same socket by "
        "UCSPI-TLS, or in a proxy before it. It decides what the greylister can read.",
    )(command)
