"""What the processes that `watch` forks have in common, before they give up the rest."""

import os
import resource
import signal
from itertools import pairwise

from probes import capabilities


def begin(name: str) -> None:
    """`name`: what `ps -o comm` shows."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # They go to all processes of a service or a terminal. A child is over when `watch` is.
        signal.signal(number, signal.SIG_IGN)
    capabilities.set_name(name)


def close_all_but(*kept: int) -> None:
    """Of the descriptors these and the standard streams stay open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    end = 2**31 - 1 if hard == resource.RLIM_INFINITY else hard
    for before, after in pairwise((2, *sorted(kept), end)):
        os.closerange(before + 1, after)
