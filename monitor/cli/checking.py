"""`smtp-horizon watch --check`: whether `watch` could begin, by doing what it does then, and undoing it.

All is tried by the functions that `watch` itself begins with. Two things are not done: no packet is read, and
no file is made that is not there yet.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path

import click
from msgspec.structs import replace

from monitor.cli.main import DONE, NOT_BEGUN, CannotBegin, complain
from monitor.cli.observers import Observers, SiteOptions, cannot_use_state
from monitor.cli.opener import Opener
from monitor.cli.privileges import give_up
from monitor.cli.probes import open_live_probe
from monitor.cli.watching import (
    WatchSettings,
    cannot_write_records,
    listening,
    own_addresses,
    web_settings,
)
from monitor.files import check_room, is_there_to_append, rights_to_open
from monitor.simulation.state_file import BESIDE, SimulationStateError, missing
from probes.capabilities import Needs
from probes.probe import Probe, ProbeError


class _Trial:
    """What was found so far."""

    def __init__(self) -> None:
        self.problems = 0
        self.made_later: list[str] = []

    def of(self, begin: Callable[[], object]) -> None:
        try:
            begin()
        except (CannotBegin, ProbeError) as problem:
            self.problems += 1
            complain(str(problem))


def check(settings: WatchSettings, opener: Opener) -> int:
    """The exit status. A line on standard error for each thing that would keep `watch` from beginning."""
    trial = _Trial()
    with ExitStack() as begun:
        if settings.tls_tap:
            from monitor.cli.tapping import start_tap  # noqa: PLC0415  it is asked for by few

            trial.of(lambda: begun.callback(start_tap(settings.site.ports, settings.user).close))
        if settings.web_config is not None:
            trial.of(partial(web_settings, settings.web_config, opener, settings.user))
        trial.of(lambda: begun.enter_context(listening(*settings.listen)))
        _check_observers(settings, opener, trial)
        if settings.records not in (None, "-"):
            trial.of(partial(_check_records, settings, trial))
        # Last, since no privilege is left after it.
        trial.of(lambda: begun.callback(_open_probe(settings).close))
    if trial.problems:
        return NOT_BEGUN
    click.echo("settings, files and privileges are good: watch can begin")
    for path in trial.made_later:
        click.echo(f"watch will make {path}")
    return DONE


def _check_observers(settings: WatchSettings, opener: Opener, trial: _Trial) -> None:
    site = settings.site
    state = site.simulate_state
    if state is not None and site.simulate:
        found: list[list[str]] = []
        trial.of(lambda: found.append(_missing(state, settings)))
        if found != [[]]:
            trial.made_later.extend(chain(*found))
            site = replace(site, simulate_state=None)
    # Each for itself, so that what is wrong with one hides nothing of the other.
    for part in (replace(site, geoip=()), replace(site, simulate=(), simulate_state=None)):
        trial.of(partial(_open_and_close, part, settings, opener))


def _open_and_close(part: SiteOptions, settings: WatchSettings, opener: Opener) -> None:
    Observers(part, own_addresses(), to_read=opener.open_to_read, user=settings.user).close()


def _check_records(settings: WatchSettings, trial: _Trial) -> None:
    assert settings.records is not None
    try:
        is_there = is_there_to_append(settings.records, settings.user)
    except OSError as error:
        raise cannot_write_records(settings.records, error) from error
    if not is_there:
        trial.made_later.append(settings.records)


def _missing(state: str, settings: WatchSettings) -> list[str]:
    """What would be made; empty where the state is there."""
    try:
        with rights_to_open(state, BESIDE, settings.user):
            made = missing(Path(state))
            if made:
                check_room(str(Path(state).absolute().parent), state)
    except SimulationStateError as error:
        raise CannotBegin(str(error)) from error
    except OSError as error:
        raise cannot_use_state(state, error) from error
    return [str(path) for path in made]


def _open_probe(settings: WatchSettings) -> Probe:
    return open_live_probe(
        settings.probe,
        settings.interfaces,
        settings.site.ports,
        partial(_give_up, settings),
    )


def _give_up(settings: WatchSettings, needs: Needs) -> None:
    give_up(settings.user, needs)
