"""Tries inputs again: `python -m tests.fuzz.again TARGET FILE...`.

With SMTP_HORIZON_PURE=1 on the sources.
"""

import os
import sys
from pathlib import Path

from scripts.native import PURE
from tests.fuzz.pure import import_sources
from tests.fuzz.worker import load


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    if os.environ.get(PURE):
        import_sources()
    target = load(sys.argv[1])
    for path in map(Path, sys.argv[2:]):
        print(path.name, repr(target.check(path.read_bytes())))


if __name__ == "__main__":
    main()
