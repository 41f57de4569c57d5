"""Where in a TLS library's file the functions begin through which servers read and write."""

import os
import re
from dataclasses import dataclass
from typing import Final

from elftools.elf.constants import P_FLAGS
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.hash import ELFHashTable, GNUHashTable
from elftools.elf.sections import Symbol

from probes.tls_tap.elf import NoUsableElfError, opened
from probes.tls_tap.hooks import HOOKS, Kind

_TELLING: Final = {Kind.OPENSSL: "SSL_read", Kind.GNUTLS: "gnutls_record_recv"}
"""What every release of it exports, and nothing else does."""

_NAME: Final = re.compile(r"[A-Za-z0-9._+-]{1,64}")
"""It is shown to people."""


@dataclass(frozen=True, slots=True)
class TlsFunctions:
    kind: Kind
    soname: str
    """What programs that are linked with it ask for: libssl.so.3. "?" for a name that none has."""
    offsets: dict[str, int]
    """Of those in HOOKS that it exports: where in the file the function begins, in bytes."""


def tls_functions(source: str | os.PathLike[str] | int) -> TlsFunctions:
    """What the library of that path or descriptor exports; a few milliseconds.

    Raises NoUsableElfError, and OSError where the file can't be opened or read.
    """
    with opened(source) as elf:
        # Sections are for whoever links or debugs: like the loader, this goes by segments alone.
        elf.header["e_shoff"] = 0
        dynamic = next(elf.iter_segments(type="PT_DYNAMIC"), None)
        if not isinstance(dynamic, DynamicSegment):
            raise NoUsableElfError("it exports nothing: no dynamic segment")
        table = _table(elf, dynamic)
        for kind, needed in _TELLING.items():
            if _offset(elf, table.get_symbol(needed)) is not None:
                offsets = {name: _offset(elf, table.get_symbol(name)) for name in HOOKS[kind]}
                found = {name: offset for name, offset in offsets.items() if offset is not None}
                return TlsFunctions(kind, _soname(dynamic), found)
    raise NoUsableElfError(f"neither OpenSSL's nor GnuTLS': exports no {' and no '.join(_TELLING.values())}")


def _table(elf: ELFFile, dynamic: DynamicSegment) -> GNUHashTable | ELFHashTable:
    """By which a name is found without a look at every name. Every library has one, for the loader."""
    _, offset = dynamic.get_table_offset("DT_GNU_HASH")
    if offset is not None:
        return GNUHashTable(elf, offset, dynamic)
    _, offset = dynamic.get_table_offset("DT_HASH")
    if offset is None:
        raise NoUsableElfError("it exports nothing: no hash table")
    return ELFHashTable(elf, offset, None, dynamic)


def _offset(elf: ELFFile, symbol: Symbol | None) -> int | None:
    """In the file, where a symbol has an address in memory."""
    if symbol is None or symbol["st_shndx"] == "SHN_UNDEF" or symbol["st_info"]["type"] != "STT_FUNC":
        return None
    address = symbol["st_value"]
    for segment in elf.iter_segments(type="PT_LOAD"):
        within = address - segment["p_vaddr"]
        if 0 <= within < segment["p_filesz"] and segment["p_flags"] & P_FLAGS.PF_X:
            offset = int(segment["p_offset"] + within)
            return offset if offset < elf.stream_len else None
    return None


def _soname(dynamic: DynamicSegment) -> str:
    tag = next(dynamic.iter_tags("DT_SONAME"), None)
    name: str = tag.soname if tag is not None else ""  # type: ignore[attr-defined]  # it has it by its kind
    return name if _NAME.fullmatch(name) else "?"
