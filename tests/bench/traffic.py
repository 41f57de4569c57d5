"""The sessions that watch is measured on: who serves them, and who drives them."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.lab import postfix
from tests.lab.network import Network, server_address
from tests.lab.postfix import Postfix
from tests.lab.server import MAIL_DOMAIN

SERVER: Final = server_address(1)
RECIPIENT: Final = f"user1@{MAIL_DOMAIN}"
PARALLEL: Final = 10  # as many as keep client and server busy on two cores
# Chosen because it is a short text mail.
MESSAGE_BYTES: Final = 1_000
BURST_SECONDS: Final = 0.1  # chosen because smtp-source knows no pauses shorter than a second

_FOLDER: Final = Path(__file__).parent
_SINK: Final = ("smtp-sink", "-u", "nobody", "-h", "mx.test", f"{SERVER}:25", "1000")
# It reads in large pieces: smtp-sink looks at each byte, and takes 18 ms for a megabyte.
_SWALLOWER: Final[list[str | Path]] = [sys.executable, _FOLDER / "swallower.py"]
_SOURCE: Final = (
    *("smtp-source", "-M", "client.test", "-f", "a@client.test", "-t", RECIPIENT),
    *("-s", str(PARALLEL)),
)


@contextmanager
def smtp_sink(network: Network) -> Iterator[None]:
    with _server(network, [*postfix.program(_SINK[0]), *_SINK[1:]]):
        yield


@contextmanager
def swallower(network: Network, address: str = SERVER) -> Iterator[None]:
    with _server(network, [*_SWALLOWER, address, "25"], address):
        yield


@contextmanager
def _server(network: Network, command: list[str | Path], address: str = SERVER) -> Iterator[None]:
    process = network.server.start(command)
    try:
        network.server.await_listeners([(address, 25)])
        yield
    finally:
        process.terminate()
        process.wait()


def real_postfix(network: Network) -> Postfix:
    return Postfix(network.server, network.folder / "postfix", (postfix.MX,))


def smtp_source(network: Network, sessions: int, *, message_bytes: int = MESSAGE_BYTES) -> None:
    name, *words = (*_SOURCE, "-l", str(message_bytes), "-m", str(sessions), f"{SERVER}:25")
    network.client.run([*postfix.program(name), *words])


def paced_smtp_source(
    network: Network, sessions: int, *, per_second: int, message_bytes: int = MESSAGE_BYTES
) -> None:
    """In bursts, a tenth of a second each."""
    burst = max(1, int(per_second * BURST_SECONDS))
    started = time.monotonic()
    for sent in range(0, sessions, burst):
        time.sleep(max(0.0, started + sent / per_second - time.monotonic()))
        smtp_source(network, min(burst, sessions - sent), message_bytes=message_bytes)


def clear_clients(
    network: Network, sessions: int, *, per_second: int = 0, message_bytes: int = MESSAGE_BYTES
) -> None:
    """Messages go out whole: smtp-source writes 4 kB at a time, so that there are no larger segments."""
    _mail_clients(network, "clear", sessions, per_second, message_bytes)


def starttls_clients(
    network: Network, sessions: int, *, per_second: int = 0, message_bytes: int = MESSAGE_BYTES
) -> None:
    """As fast as they go, where no pace is given. Raises RuntimeError when a session failed."""
    _mail_clients(network, "starttls", sessions, per_second, message_bytes)


def _mail_clients(network: Network, channel: str, sessions: int, per_second: int, message_bytes: int) -> None:
    where = (SERVER, RECIPIENT, channel)
    numbers = (sessions, message_bytes, PARALLEL, per_second)
    network.client.run([sys.executable, _FOLDER / "mail_client.py", *where, *map(str, numbers)])


Drive = Callable[[Network, int], None]


def commands(sessions: int) -> list[str]:
    """As one would type them, each on its host."""
    source = [*_SOURCE, "-l", str(MESSAGE_BYTES), "-m", str(sessions), f"{SERVER}:25"]
    return [shlex.join(_SINK), shlex.join(source)]
