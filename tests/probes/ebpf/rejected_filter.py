"""`smtp-horizon` with a full filter that the kernel's verifier rejects: `rejected_filter FOLDER watch ...`.

FOLDER becomes a copy of the filter's sources. The plain filter in it is as it always is.
"""

import shutil
import sys
from pathlib import Path
from typing import Final

from monitor.cli.main import main
from probes.ebpf import program

SOURCES: Final = Path(program.__file__).parent


def copy_sources(folder: Path) -> None:
    folder.mkdir()
    for source in SOURCES.glob("*.c"):
        shutil.copy(source, folder)


def break_full_filter(sources: Path) -> None:
    """It copies as many bytes as a packet says into room for some."""
    source = sources / "appetite.c"
    text = source.read_text()
    broken = text.replace("window->bytes, there)", "window->bytes, length)")
    assert broken != text
    source.write_text(broken)


if __name__ == "__main__":
    folder = Path(sys.argv.pop(1))
    copy_sources(folder)
    break_full_filter(folder)
    setattr(program, "_FOLDER", folder)  # noqa: B010 (a constant elsewhere)
    main()
