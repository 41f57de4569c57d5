"""`smtp-horizon watch` whose tap has little room for what was not read yet: `small_tap BYTES watch ...`."""

import sys
from pathlib import Path

from monitor.cli.main import main
from probes.tls_tap import program, tap
from tests.lab.network import Namespace
from tests.tls_tap.tapped_watch import TappedWatch


class SmallTapWatch(TappedWatch):
    def __init__(self, namespace: Namespace, folder: Path, size_bytes: int) -> None:
        super().__init__(namespace, folder)
        self._command[:1] = [sys.executable, "-m", "tests.faults.tls_tap.small_tap", str(size_bytes)]


if __name__ == "__main__":
    size_bytes = int(sys.argv.pop(1))
    for module in (program, tap):
        setattr(module, "RING_BYTES", size_bytes)  # noqa: B010 (a constant elsewhere)
    main()
