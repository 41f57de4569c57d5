"""Whether a program calls shared libraries at all: those within an executable can't be found by name."""

from contextlib import suppress
from enum import Enum, auto
from typing import Final

from elftools.elf.dynamic import DynamicSegment
from elftools.elf.segments import NoteSegment

from probes.tls_tap.elf import NoUsableElfError, opened

_GO_NOTE: Final = "Go"
_GO_SECTION: Final = ".go.buildinfo"
"""Left where a build with -buildid= has no note; `strip` leaves both."""


class Linkage(Enum):
    GO = auto()
    """Go's own crypto/tls is within it, whatever else it is linked with."""
    STATIC = auto()
    """All libraries are within the executable, their names are not."""
    SHARED = auto()


def linkage_of(pid: int) -> Linkage | None:
    """Of the program that the process runs. None where it has ended, or is not ours to look into, or is no
    file that can be read."""
    with suppress(OSError, NoUsableElfError), opened(f"/proc/{pid}/exe") as elf:
        notes = (segment for segment in elf.iter_segments(type="PT_NOTE") if isinstance(segment, NoteSegment))
        if any(note["n_name"] == _GO_NOTE for segment in notes for note in segment.iter_notes()):
            return Linkage.GO
        if elf.get_section_by_name(_GO_SECTION) is not None:
            return Linkage.GO
        # The loader itself has none either, and runs a program that is named to it; but it is a library.
        has_loader = next(elf.iter_segments(type="PT_INTERP"), None) is not None
        dynamic = next(elf.iter_segments(type="PT_DYNAMIC"), None)
        is_library = isinstance(dynamic, DynamicSegment) and any(dynamic.iter_tags("DT_SONAME"))
        return Linkage.SHARED if has_loader or is_library else Linkage.STATIC
    return None
