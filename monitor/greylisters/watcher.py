"""What the models have in common."""

from mypy_extensions import mypyc_attr

from monitor.greylisters.placement import TlsEnds
from monitor.sessions.reach import Ending, ReachModel
from monitor.sessions.record import By, Channel


@mypyc_attr(allow_interpreted_subclasses=True)  # a model may be a file that nobody has compiled
class StreamWatcher(ReachModel):
    """A program at a site of which it is known where TLS ends."""

    def __init__(self, tls_ends: TlsEnds) -> None:
        self.tls_ends = tls_ends


def by_tls(ending: Ending) -> By:
    """Which kind of TLS hides a session that is hidden."""
    return By.STARTTLS if ending.channel is Channel.STARTTLS else By.IMPLICIT_TLS
