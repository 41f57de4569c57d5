"""A TLS library's file, which a container's owner may have written."""

import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from probes.tls_tap.elf import NoUsableElfError
from probes.tls_tap.hooks import HOOKS
from probes.tls_tap.libraries import tls_functions
from tests.probes.tls_tap.made import compiled

MAX_BYTES: Final = 1_500
CPU_LIMIT_NS: Final = 100_000_000
"""The bound is on how often a file is read from (`elf._READS`), however small it is."""
# Tags of the dynamic segment: the tables by which names are found, of symbols and of strings.
WORDS: Final = (
    *(struct.pack("<Q", tag) for tag in (0, 4, 5, 6, 14, 0x6FFF_FEF5)),
    *(b"\xff" * 4, b"\xff" * 8, b"SSL_read\0", b"gnutls_record_recv\0"),
)

_SMALL: Final = (
    *("-shared", "-fPIC", "-nostdlib", "-Os", "-s", "-fno-asynchronous-unwind-tables"),
    *("-Wl,--build-id=none,-N,--no-warn-rwx-segments,-z,max-page-size=16", "-Wl,-soname,libssl.so.9"),
)
_SECTION_HEADERS: Final = 40
"""Where their place stands; they are the end of the file, and nobody reads them."""


def check(data: bytes) -> object:
    descriptor = os.memfd_create("library")
    try:
        os.write(descriptor, data)
        functions = tls_functions(descriptor)
    except NoUsableElfError:
        return None
    finally:
        os.close(descriptor)
    assert functions.offsets.keys() <= set(HOOKS[functions.kind])
    assert all(0 <= offset < len(data) for offset in functions.offsets.values())
    return functions


def seeds() -> Iterator[bytes]:
    """Libraries of some 800 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        for names in HOOKS.values():
            source = "".join(f"int {name}(void) {{ return 1; }}\n" for name in list(names)[:3])
            for table in ("gnu", "sysv", "both"):
                options = [*_SMALL, f"-Wl,--hash-style={table}"]
                content = compiled(source, Path(folder, "library"), options).read_bytes()
                (end,) = struct.unpack_from("<Q", content, _SECTION_HEADERS)
                yield content[:end]
