"""`smtp-horizon watch` by a clock that can be set: `other_clock.py FILE watch ...`, FILE saying by how much.

In seconds. Packets of the eBPF probe have boot time, which nobody can set: all UTC comes from time.time_ns.
(libfaketime, which sets the clock of whole programs, breaks the sleep of Python 3.11.)
"""

import sys
import time
from pathlib import Path

from monitor.cli.main import main

if __name__ == "__main__":
    ahead_seconds = Path(sys.argv.pop(1))
    utc_ns = time.time_ns
    setattr(time, "time_ns", lambda: utc_ns() + int(ahead_seconds.read_text()) * 10**9)  # noqa: B010 (a clock)
    main()
