"""What looks at finished sessions, in `read` and in `watch` alike."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from monitor.cli.main import CannotBegin
from monitor.cli.parameters import Countries
from monitor.files import open_data, rights_to_open
from monitor.greylisters import TlsEnds, models
from monitor.metrics.countries import CountrySlots
from monitor.metrics.tally import Tally
from monitor.peers import Peers
from monitor.rights import User
from monitor.sessions.direction import OurAddresses
from monitor.sessions.record import SessionRecord
from monitor.sessions.site import Site, nowhere

if TYPE_CHECKING:  # what few ask for is loaded where it is asked for: imports are most of a short run
    from monitor.geoip import GeoDatabases
    from monitor.simulation.simulation import Simulation
    from monitor.tapped.streams import TappedStreams

_LOG: Final = logging.getLogger(__name__)


class SiteOptions(Struct, frozen=True, kw_only=True):
    """What the operator says of the place, and wants to know of it: the options that `read` and `watch`
    share, by their names."""

    ports: frozenset[int]
    local_network: tuple[IPv4Network | IPv6Network, ...]
    tls_ends: str
    geoip: tuple[str, ...]
    countries: Countries
    simulate: tuple[str, ...]
    simulate_state: str | None
    simulate_delay: int | None


class Observers:
    """The site, and all that counts what happens there."""

    def __init__(
        self,
        options: SiteOptions,
        own_addresses: Sequence[str] = (),
        *,
        is_tapped: bool = False,
        to_read: Callable[[str], int] = open_data,
        user: User | None = None,
    ) -> None:
        """`is_tapped`: a tap tells `tapped` what the server decrypts. `to_read`: see GeoDatabases.
        `user`: whom we will become. Raises CannotBegin."""
        if options.simulate_state is not None and not options.simulate:
            raise CannotBegin("--simulate-state keeps what --simulate learns: name a greylister with that")
        self.ours = OurAddresses(options.local_network, own_addresses)
        self.peers = Peers(is_tapped=is_tapped)
        self._resources = ExitStack()
        with self._resources:
            self._geo = self._open_databases(options, to_read)
            self.simulation = self._open_simulation(options, user)
            self._resources = self._resources.pop_all()
        countries = CountrySlots(options.countries.limit, options.countries.fixed)
        self.tally = Tally(options.ports, countries if self._geo is not None else None)
        self.tapped = self._tapped_streams() if is_tapped else None
        self.site = Site(
            self.ours,
            models(TlsEnds(options.tls_ends)),
            self._geo.locate if self._geo is not None else nowhere,
            self.tapped.take if self.tapped is not None else None,
        )

    def _tapped_streams(self) -> "TappedStreams":
        from monitor.tapped.streams import TappedStreams  # noqa: PLC0415

        return TappedStreams(self._mismatch)

    def _mismatch(self, community_id: str) -> None:
        """Once a session, and never where all is right."""
        _LOG.warning(
            "session %s: its packets say what was not so inside its TLS; please report it", community_id
        )
        self.tally.verdict_mismatch()

    def _open_databases(self, options: SiteOptions, to_read: Callable[[str], int]) -> "GeoDatabases | None":
        if not options.geoip:
            return None
        from monitor.geoip import GeoDatabaseError, GeoDatabases  # noqa: PLC0415

        try:
            databases = GeoDatabases(options.geoip, to_read)
        except GeoDatabaseError as error:
            raise CannotBegin(str(error)) from error
        self._resources.callback(databases.close)
        return databases

    def _open_simulation(self, options: SiteOptions, user: User | None) -> "Simulation | None":
        if not options.simulate:
            return None
        from pathlib import Path  # noqa: PLC0415

        from monitor.simulation.postgrey import DELAY_SECONDS  # noqa: PLC0415
        from monitor.simulation.simulation import Simulation  # noqa: PLC0415
        from monitor.simulation.state_file import BESIDE, SimulationStateError  # noqa: PLC0415

        state = Path(options.simulate_state) if options.simulate_state is not None else None
        try:
            delay_seconds = options.simulate_delay or DELAY_SECONDS
            with rights_to_open(str(state), BESIDE, user) if state is not None else nullcontext():
                simulation = Simulation(options.simulate, state, postgrey_delay_seconds=delay_seconds)
        except SimulationStateError as error:
            raise CannotBegin(str(error)) from error
        except OSError as error:
            raise cannot_use_state(str(state), error) from error
        self._resources.callback(simulation.close)
        return simulation

    def record(self, record: SessionRecord, written: bool | None = None) -> None:
        """A session is over. `written`: see Tally.count."""
        self.peers.record(record)
        if self.simulation is not None:
            self.simulation.record(record)
        self.tally.count(record, written)

    def tick(self, now_ns: int) -> None:
        """The clock has moved on, though no session may have ended."""
        self.peers.tick(now_ns)
        if self.tapped is not None:
            self.tapped.tick(now_ns)
        if self.simulation is not None:
            self.simulation.tick(now_ns)

    def reload(self) -> None:
        """Takes the files anew that others write."""
        if self._geo is not None:
            self._geo.reload()

    def close(self) -> None:
        """May be called twice."""
        self._resources.close()


def cannot_use_state(path: str, error: OSError) -> CannotBegin:
    return CannotBegin(
        f"cannot use {error.filename or path} for the simulation: {error.strerror};"
        " name another file with --simulate-state"
    )
