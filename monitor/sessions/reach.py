"""How far the programs that watch the stream beside the server can see: what a model of one looks like, and
what it is told of a session.

The models themselves are in monitor.greylisters, one file each.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

from mypy_extensions import mypyc_attr

from monitor.sessions.record import Channel, Envelope, GreylisterReach
from monitor.smtp.events import CommandAnswered
from monitor.smtp.replies import Reply


class Ending:
    """What is known of a session once it is over."""

    __slots__ = ("began_in_tls", "channel", "client_sent_tls", "commands_lost", "end_seen", "envelope")

    def __init__(
        self,
        *,
        envelope: Envelope,
        channel: Channel,
        began_in_tls: bool,
        client_sent_tls: bool,
        end_seen: bool,
        commands_lost: bool,
    ) -> None:
        self.envelope: Final = envelope
        self.channel: Final = channel
        self.began_in_tls: Final = began_in_tls
        """The client's first bytes of all were TLS."""
        self.client_sent_tls: Final = client_sent_tls
        self.end_seen: Final = end_seen
        """The connection's end was captured."""
        self.commands_lost: Final = commands_lost
        """Commands may have been lost, before encryption was established if it ever was."""


@mypyc_attr(allow_interpreted_subclasses=True)
class ReachModel(ABC):
    """One program. It reads along, in the order of the wire, and holds no state: what a reply settles is
    settled for the session, and what nothing settled is decided at its end.

    A session's `GreylisterReach` is the first that one of the methods returns; None means: read on.
    """

    name: ClassVar[str]
    """In records and as a metric label."""
    results: ClassVar[frozenset[GreylisterReach]]
    """All that it can find, under any setting: the closed set of the metrics' labels."""

    def greeted(self, banner: Reply) -> GreylisterReach | None:
        """The server's banner."""
        return None

    def answered(self, event: CommandAnswered) -> GreylisterReach | None:
        """A command and its reply, or that none will be seen."""
        return None

    def lost(self) -> GreylisterReach | None:
        """Commands or replies may have been lost here, all before the first one included."""
        return None

    @abstractmethod
    def ended(self, ending: Ending) -> GreylisterReach:
        """The session is over, and nothing in it was decisive."""


@mypyc_attr(acyclic=True)
class Reaches:
    """What the models find of one session."""

    __slots__ = ("_found", "_models")

    def __init__(self, models: Sequence[ReachModel]) -> None:
        self._models = tuple(models)
        self._found: list[GreylisterReach | None] | None = None
        """Of each model, None while it reads along; no list before one has found something."""

    def greeted(self, banner: Reply) -> None:
        for number, model in enumerate(self._models):
            if self._found is None or self._found[number] is None:
                self._settle(number, model.greeted(banner))

    def answered(self, event: CommandAnswered) -> None:
        for number, model in enumerate(self._models):
            if self._found is None or self._found[number] is None:
                self._settle(number, model.answered(event))

    def lost(self) -> None:
        for number, model in enumerate(self._models):
            if self._found is None or self._found[number] is None:
                self._settle(number, model.lost())

    def ended(self, ending: Ending) -> dict[str, GreylisterReach]:
        """By the models' names, in their order."""
        return {
            model.name: (self._found[number] if self._found is not None else None) or model.ended(ending)
            for number, model in enumerate(self._models)
        }

    def _settle(self, number: int, found: GreylisterReach | None) -> None:
        if found is None:
            return
        if self._found is None:
            self._found = [None] * len(self._models)
        self._found[number] = found
