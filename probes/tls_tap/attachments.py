"""The library files whose functions call the tap's programs."""

import os
from collections.abc import Iterable, Mapping
from typing import Final

from probes.tls_tap.elf import NoUsableElfError
from probes.tls_tap.hooks import HOOKS, Hook
from probes.tls_tap.libraries import tls_functions
from probes.tls_tap.mapped import TlsLibrary, open_library
from probes.tls_tap.roots import real_file
from probes.tls_tap.tracing import Attached, at_function

FILES_MAX: Final = 64
"""Chosen as more than a machine has containers with mail servers: a container's owner can make ever more
files that look like libraries."""


class Attachments:
    """Attached once, a file stays so: whoever maps it later is read along too, and what nobody maps costs
    nothing."""

    def __init__(self, programs: Mapping[str, int]) -> None:
        """`programs`: descriptors, by the names of their functions."""
        self._programs = programs
        self._files: dict[tuple[int, ...], list[Attached]] = {}
        """Empty for one that could not be."""

    def __len__(self) -> int:
        return sum(bool(attached) for attached in self._files.values())

    def attach(self, libraries: Iterable[TlsLibrary]) -> list[str]:
        """What there is to say of those that were not seen before, a line each."""
        return [said for library in libraries if (said := self._attach(library)) is not None]

    def _attach(self, library: TlsLibrary) -> str | None:
        try:
            descriptor = open_library(library)
        except OSError:
            return None  # its process has ended, or the file was replaced; who comes next has another
        try:
            file = real_file(descriptor)
            if file in self._files or len(self._files) >= FILES_MAX:
                return None
            self._files[file] = []
            functions = tls_functions(descriptor)
            for name, offset in functions.offsets.items():
                hook = HOOKS[functions.kind][name]
                if hook.within not in functions.offsets:
                    self._files[file] += self._hook(hook, descriptor, offset)
        except (NoUsableElfError, OSError) as error:
            self._give_up(file)
            return f"cannot read along in {library.path} of process {library.pid}: {error}"
        finally:
            os.close(descriptor)
        return f"reading along in {library.path} of process {library.pid}"

    def _hook(self, hook: Hook, descriptor: int, offset: int) -> Iterable[Attached]:
        path = f"/proc/self/fd/{descriptor}"
        # The way out first: it finds nothing of a call whose beginning was not seen.
        if hook.leave is not None:
            yield at_function(self._programs[hook.leave], path, offset, at_return=True)
        yield at_function(self._programs[hook.enter], path, offset, at_return=False)

    def _give_up(self, file: tuple[int, ...]) -> None:
        for attached in self._files[file]:
            attached.close()
        self._files[file] = []

    def close(self) -> None:
        """Takes everything off; what comes afterwards is attached anew. May be called twice."""
        for file in self._files:
            self._give_up(file)
        self._files.clear()
