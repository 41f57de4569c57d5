"""The last of a process of Wireshark's: what it says, and its end."""

import asyncio
import os
import signal
from contextlib import suppress
from typing import Final

# Chosen because the longest of their messages is a screenful.
LAST_WORDS_BYTES: Final = 4096
# What has been killed is gone at once, unless the kernel itself holds it.
KILLED_SECONDS: Final = 5.0

_READ_BYTES: Final = 64 * 1024


async def last_words_of(process: asyncio.subprocess.Process) -> str:
    """What a process says on standard error until its end, in one line: the last of it, if it is long."""
    assert process.stderr is not None
    said = b""
    while piece := await process.stderr.read(LAST_WORDS_BYTES):
        said = (said + piece)[-LAST_WORDS_BYTES:]
    return " ".join(said.decode("utf-8", "replace").split())


async def end(process: asyncio.subprocess.Process, patience_seconds: float = 0.0) -> None:
    """Waits so long for its end, and then kills it, with all that it has started.

    It must lead a process group of its own, and nobody else may read its standard output any more.
    """
    if process.stdin is not None:
        process.stdin.close()
    rest = asyncio.ensure_future(_rest_of(process))
    if patience_seconds:
        await asyncio.wait({rest}, timeout=patience_seconds)
    if process.returncode is None:
        # Not Process.kill, which looks whether it has ended, and so takes its status from who waits for it.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.wait({rest}, timeout=KILLED_SECONDS)
    rest.cancel()
    await asyncio.gather(rest, return_exceptions=True)


async def _rest_of(process: asyncio.subprocess.Process) -> None:
    """asyncio's wait returns only when all pipes are closed: one that is full is closed by reading it."""
    assert process.stdout is not None
    while await process.stdout.read(_READ_BYTES):
        pass
    if process.stdin is not None:
        with suppress(ConnectionError):
            await process.stdin.wait_closed()
    await process.wait()
