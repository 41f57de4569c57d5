"""smtp-horizon with tshark and dumpcap replaced often: `often_replaced FRAMES SECONDS watch ...`.

The command line has no such settings: nobody but a test has use for them.
"""

import sys
from functools import partial

from monitor.cli.main import main
from probes.tshark import dumpcap, probe


def replace_often(frames_per_tshark: int, seconds_per_dumpcap: float) -> None:
    for kind in (probe.LiveTsharkProbe, probe.TsharkFilesProbe):
        setattr(probe, kind.__name__, partial(kind, frames_per_tshark=frames_per_tshark))
    setattr(dumpcap, "TAKE_OVER_SECONDS", seconds_per_dumpcap)  # noqa: B010 (it is final for all others)


if __name__ == "__main__":
    replace_often(int(sys.argv.pop(1)), float(sys.argv.pop(1)))
    main()
