"""The sources of `monitor` and `probes` in place of what was compiled of them, in this process alone."""

import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path

from scripts.native import PACKAGES, ROOT


def import_sources() -> None:
    """From here on; nothing of them may have been imported yet."""
    assert not sys.modules.keys() & set(PACKAGES)
    houses = [ROOT / package for package in PACKAGES]

    def find(path: str) -> FileFinder:
        if not any(Path(path).is_relative_to(house) for house in houses):
            raise ImportError
        return FileFinder(path, (SourceFileLoader, SOURCE_SUFFIXES))

    sys.path_hooks.insert(0, find)
    sys.path_importer_cache.clear()


def is_compiled() -> bool:
    """Which of the two runs in this process."""
    from monitor import streams  # noqa: PLC0415

    return not streams.__file__.endswith(".py")
