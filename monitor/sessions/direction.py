"""Whose delivery a session is: by the addresses that are ours."""

from collections.abc import Collection, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from monitor.sessions.record import Direction

_REMEMBERED_MAX: Final = 1_024
"""Addresses of which it is kept whether they are ours. Chosen as in monitor.sessions.addresses."""


class OurAddresses:
    """The watched host's addresses and the networks that the operator named as ours."""

    def __init__(
        self, networks: Sequence[IPv4Network | IPv6Network] = (), hosts: Collection[str] = ()
    ) -> None:
        """`hosts`: addresses as text; a zone (`%eth0`) is ignored."""
        self._networks = tuple(networks)
        self._hosts: frozenset[str] = frozenset()
        self._in_networks: dict[str, bool] = {}
        self.set_hosts(hosts)

    def set_hosts(self, hosts: Collection[str]) -> None:
        """Addresses come and go while a host is watched."""
        self._hosts = frozenset(str(ip_address(host.partition("%")[0])) for host in hosts)

    def direction(self, client: str, server: str) -> Direction:
        """The direction of a session between these addresses."""
        if not self._hosts and not self._networks:
            return Direction.UNKNOWN
        client_is_ours, server_is_ours = self._are_ours(client), self._are_ours(server)
        if client_is_ours and server_is_ours:
            return Direction.INTERNAL
        if server_is_ours:
            return Direction.INBOUND
        return Direction.OUTBOUND if client_is_ours else Direction.UNKNOWN

    def _are_ours(self, address: str) -> bool:
        if address in self._hosts:
            return True
        if not self._networks:
            return False
        known = self._in_networks.get(address)
        if known is None:
            if len(self._in_networks) >= _REMEMBERED_MAX:
                self._in_networks.clear()
            known = self._in_networks[address] = self._is_in_networks(address)
        return known

    def _is_in_networks(self, address: str) -> bool:
        parsed = ip_address(address)
        return any(parsed.version == network.version and parsed in network for network in self._networks)
