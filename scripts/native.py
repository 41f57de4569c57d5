"""The modules that every packet or session passes, compiled with mypyc: which they are, and how.

    python scripts/native.py             compiles them beside their sources, where that is not done yet
    SMTP_HORIZON_PURE=1 ...              removes what that made: then Python runs the sources

What was compiled is told by its sources' hashes, not by times: those change with every checkout.
See docs/adr/0014-compiled.md.
"""

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]

# The one list of them. A package's __init__ says where things are, and runs once.
COMPILED: Final = (
    "probes/segment.py",
    "probes/probe.py",
    "probes/fragments.py",
    "probes/frames.py",
    "probes/pcap/reader.py",
    "probes/pcap/classic.py",
    "probes/pcap/pcapng.py",
    "probes/ebpf/event.py",
    "probes/ebpf/ring.py",
    "monitor/side.py",
    "monitor/anomalies.py",
    "monitor/proxy_protocol.py",
    "monitor/streams.py",
    "monitor/smtp/[!_]*.py",
    "monitor/tls/[!_]*.py",
    "monitor/sessions/[!_]*.py",
    "monitor/greylisters/[!_]*.py",
    "monitor/peers/[!_]*.py",
    "monitor/metrics/tally.py",
)
INTERPRETED: Final = frozenset({"monitor/sessions/record.py"})
"""But not these: a msgspec.Struct is C already."""
PACKAGES: Final = ("monitor", "probes")
LIBRARY: Final = "smtp_horizon"
"""All of them are one library; what stands beside each source is a door to it."""

PURE: Final = "SMTP_HORIZON_PURE"
"""The environment variable that asks for no compiled code."""

_BUILD: Final = ROOT / "build" / "native"
_NOTE: Final = _BUILD / "compiled.json"

# -O3 makes it larger and no faster (measured); nobody looks into it with a debugger for C. Hidden symbols
# are called without a detour. What a newer compiler thinks of mypyc's C must not end anybody's build.
_FLAGS: Final = ("-O2", "-g0", "-fvisibility=hidden", "-Wno-error")


def sources() -> list[str]:
    """The compiled modules' sources, from the repository's root."""
    found = {str(path.relative_to(ROOT)) for pattern in COMPILED for path in ROOT.glob(pattern)}
    return sorted(found - INTERPRETED)


def libraries() -> list[Path]:
    """All compiled files in the tree."""
    inside = (path for package in PACKAGES for path in (ROOT / package).rglob("*.so"))
    return sorted([*inside, *ROOT.glob(f"{LIBRARY}__mypyc*.so")])


def outdated() -> list[str]:
    """Sources that are not what was compiled; empty where all is, and where nothing is compiled."""
    if not libraries():
        return []
    known: dict[str, str] = _note().get("sources", {})
    now = _hashes()
    return sorted(path for path in known.keys() | now.keys() if known.get(path) != now.get(path))


def compile_all() -> None:
    """Compiles in the tree what is not compiled yet."""
    note = {"by": _tools(), "sources": _hashes()}
    if _note() == note and len(libraries()) == len(sources()) + 1:
        return
    print(f"compiling {len(sources())} modules; half a minute on two processors ...", flush=True)
    remove()
    with redirect_stdout(sys.stderr):
        _build()
    _NOTE.write_text(json.dumps(note, indent=1))


def remove() -> None:
    """Makes the tree as it was before anything was compiled."""
    for path in libraries():
        path.unlink()
    shutil.rmtree(_BUILD, ignore_errors=True)


def missing_tool() -> str | None:
    """What compiling needs, and is not there."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if shutil.which(compiler.split()[0]) is None:
        return "a C compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's headers"
    return None


def _note() -> dict[str, Any]:
    try:
        note: dict[str, Any] = json.loads(_NOTE.read_text())
    except (OSError, ValueError):
        return {}
    return note


def _hashes() -> dict[str, str]:
    return {path: sha256((ROOT / path).read_bytes()).hexdigest() for path in sources()}


def _tools() -> list[str]:
    """What the same sources would be compiled to something else by."""
    return [version("mypy"), str(sysconfig.get_config_var("EXT_SUFFIX")), *_FLAGS]


def _build() -> None:
    # Only whoever compiles needs them.
    from mypyc.build import mypycify  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415
    from setuptools.dist import Distribution  # noqa: PLC0415

    os.chdir(ROOT)
    target = str(_BUILD.relative_to(ROOT))
    extensions = mypycify(
        ["--config-file=pyproject.toml", *sources()],
        target_dir=target,
        group_name=LIBRARY,
        multi_file=True,  # one C file for each module, so that each processor has its own to compile
    )
    for extension in extensions:
        extension.extra_compile_args.extend(_FLAGS)

    class BuildInParallel(build_ext):  # type: ignore[misc]
        def build_extensions(self) -> None:
            self.compiler.compile = _in_parallel(self.compiler.compile)
            super().build_extensions()

    command = BuildInParallel(Distribution({"ext_modules": extensions}))
    command.inplace = True
    command.build_lib = f"{target}/lib"
    command.build_temp = f"{target}/objects"
    command.ensure_finalized()
    command.run()


def _in_parallel(compile_some: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """A C compiler's method which compiles some sources one after the other -> one that does not wait."""

    def compile_parallel(all_sources: Iterable[str], **options: Any) -> list[str]:
        by_size = sorted(
            all_sources, key=lambda path: -Path(path).stat().st_size
        )  # none large is left for last
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = pool.map(lambda path: compile_some([path], **options), by_size)
            return [compiled for some in done for compiled in some]

    return compile_parallel


def main() -> None:
    lacking = missing_tool()
    if os.environ.get(PURE) or lacking is not None:
        remove()
        why = f"{lacking} is missing" if lacking is not None else f"{PURE} is set"
        print(f"not compiled, as {why}: pure Python runs, and takes about twice as long")
        return
    compile_all()


if __name__ == "__main__":
    main()
