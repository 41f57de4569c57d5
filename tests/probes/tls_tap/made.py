"""Libraries and programs made for a test by Debian's C compiler."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from probes.tls_tap.hooks import HOOKS, Kind

# As libssl.so.1.1 has them, all under one version.
_VERSION_1_1 = "OPENSSL_1_1_0 {{ global: {names}; local: *; }};\n"


def compiled(source: str, output: Path, options: Sequence[str] = ()) -> Path:
    subprocess.run(
        ["gcc", "-x", "c", "-", "-o", output, *options], input=source, text=True, check=True, timeout=60
    )
    return output


def libssl_1_1(folder: Path, options: Sequence[str] = ()) -> Path:
    """A small library with the names of OpenSSL 1.1's."""
    names = HOOKS[Kind.OPENSSL]
    source = "".join(f"int {function}(void) {{ return {len(function)}; }}\n" for function in names)
    script = folder / "symbols.map"
    script.write_text(_VERSION_1_1.format(names="; ".join(names)))
    linking = [f"-Wl,--version-script={script}", "-Wl,-soname,libssl.so.1.1"]
    return compiled(source, folder / "libssl.so.1.1", ["-shared", "-fPIC", "-nostdlib", *linking, *options])
