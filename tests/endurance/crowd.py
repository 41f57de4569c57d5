"""5,000 sessions of real clients with real mail servers, at a pace that a small machine keeps up with.

Most are smtp-source's, in clear, in bursts; no two have the same sender and recipient. Between them, spread
over the whole time, come those of clients that tell what they did and were answered: every kind of
conversation that tests/lab knows (STARTTLS, ports 465 and 587, refusals, clients that vanish), smtplib and
swaks. And those of the clients of Postfix and Exim.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Final, NamedTuple

from tests.lab import exim, opensmtpd, postfix, scenario
from tests.lab.laboratory import Laboratory
from tests.lab.network import client_address, server_address
from tests.lab.sasl import PASSWORD, USER
from tests.lab.smtplib_client import send_with_smtplib
from tests.lab.swaks import run_swaks
from tests.lab.truth import Endpoint, SessionTruth

SESSIONS: Final = 5_000

# Chosen because it leaves two cores some time, with the lab, the probe and tshark on them. Nobody insists on
# it: when watch falls behind, the crowd waits.
PER_SECOND: Final = 50
BURST: Final = 25
_PARALLEL: Final = 5  # of smtp-source
_THREADS: Final = 6
MESSAGE_BYTES: Final = 2_000

SOURCE_NAME: Final = "source.test"
RELAY_NAME: Final = "relay.client.test"  # of Postfix's client
_RELAY_SENDER: Final = "relay@client.test"
RELAYED: Final = 200
_EXIM_RELAYED: Final = 20

_MX: Final = (server_address(1), 25)
_MX6: Final = (server_address(1, 6), 25)
_SMTPS: Final = (server_address(1), 465)
_SUBMISSION: Final = (server_address(1), 587)
_EXIM: Final = (server_address(exim.NUMBER), 25)
_EXIM_SMTPS: Final = (server_address(exim.NUMBER), 465)
# Its log would name the client that the proxy names: one witness less.
_LEFT_OUT: Final = {server_address(postfix.PROXIED.number)}

# The addresses of the clients that tell; smtp-source and the relaying clients go from the first one.
_CONVERSING: Final = range(5, 35)
_LIBRARY: Final = 3
_SWAKS: Final = 4
_FIRST_SWAKS_PORT: Final = 20_000

Telling = Callable[[], SessionTruth]
"""A session; afterwards its client tells."""


class Crowd(NamedTuple):
    truths: list[SessionTruth]
    """Of the clients that tell."""
    bulk: set[tuple[str, str]]
    """Sender and recipient of each of smtp-source's sessions."""
    seconds: float


def drive(lab: Laboratory, wait_for: Callable[[int], None]) -> Crowd:
    """`wait_for` is told after each burst how many sessions are over, and may take its time."""
    telling = list(_interleaved(_told_sessions(lab)))
    bulk = SESSIONS - len(telling) - RELAYED - _EXIM_RELAYED
    bursts = [min(BURST, bulk - begun) for begun in range(0, bulk, BURST)]
    pace_seconds = SESSIONS / len(bursts) / PER_SECOND
    started = time.monotonic()
    driven: set[tuple[str, str]] = set()
    futures: list[Future[SessionTruth]] = []
    message = scenario.body().replace(b"..", b" .")
    with lab.network.client.threads(_THREADS) as threads:
        for number, size in enumerate(bursts):
            time.sleep(max(0.0, started + number * pace_seconds - time.monotonic()))
            due = len(telling) * (number + 1) // len(bursts)
            futures += [threads.submit(one) for one in telling[len(futures) : due]]
            sender = f"burst{number:03}@{SOURCE_NAME}"
            _smtp_source(lab, sender, size)
            driven |= {(sender, f"{recipient}{scenario.RECIPIENT}") for recipient in range(1, size + 1)}
            for _ in _share(RELAYED, number, len(bursts)):
                lab.postfix_client.deliver([_MX[0]], _RELAY_SENDER, message)
            for turn in _share(_EXIM_RELAYED, number, len(bursts)):
                text = message.replace(b"\r\n", b"\n").decode()
                lab.exim_client.deliver(_EXIM[0], text, sender=_RELAY_SENDER, in_clear=turn % 2 == 0)
            wait_for(len(driven))
        truths = [future.result() for future in futures]
    lab.postfix_client.await_deliveries()
    return Crowd(truths, driven, time.monotonic() - started)


def _share(total: int, number: int, of: int) -> range:
    """Its part of so many, spread evenly."""
    return range(total * number // of, total * (number + 1) // of)


def _smtp_source(lab: Laboratory, sender: str, sessions: int) -> None:
    """Raises RuntimeError if one failed."""
    lab.network.client.run(
        [
            *(*postfix.program("smtp-source"), "-N", "-s", str(_PARALLEL), "-m", str(sessions)),
            *("-l", str(MESSAGE_BYTES), "-M", SOURCE_NAME, "-f", sender, "-t", scenario.RECIPIENT, _MX[0]),
        ]
    )


def _told_sessions(lab: Laboratory) -> Iterator[list[Telling]]:
    yield list(_conversations())
    yield list(_library())
    yield list(_swaks(lab))


def _conversations() -> Iterator[Telling]:
    places = itertools.cycle(_CONVERSING)
    opensmtpd_server = server_address(opensmtpd.NUMBER)
    kinds: list[tuple[scenario.Conversation, Endpoint]] = [
        *(one for one in scenario.conversations() if one[1][0] not in _LEFT_OUT),
        *[(partial(scenario.starttls, version=scenario.TLS_1_3), _MX)] * 120,
        *[(partial(scenario.starttls, version=scenario.TLS_1_2), _MX)] * 40,
        *[(scenario.starttls, _MX6)] * 40,
        *[(scenario.starttls, _EXIM)] * 40,
        *[(partial(scenario.starttls, login=True), _SUBMISSION)] * 100,
        *[(partial(scenario.implicit_tls, login=True), _SMTPS)] * 80,
        *[(scenario.implicit_tls, _EXIM_SMTPS)] * 20,
        *[(scenario.plain, _EXIM)] * 60,
        *[(scenario.plain, (opensmtpd_server, 25))] * 40,
    ]
    for conversation, server in kinds:
        client = client_address(next(places), 6 if ":" in server[0] else 4)
        yield partial(conversation, server, client)


def _library() -> Iterator[Telling]:
    message = scenario.body().replace(b"..", b" .")
    to = [scenario.RECIPIENT]
    for server, tls in itertools.product((_MX, _EXIM), (False, True, True)):
        for _ in range(20):
            yield partial(
                send_with_smtplib,
                *(server, client_address(_LIBRARY), "library@client.test", to, message),
                tls=tls,
            )


def _swaks(lab: Laboratory) -> Iterator[Telling]:
    common = ("--from", "swaks@client.test", "--to", scenario.RECIPIENT, "--ehlo", "swaks.test")
    ways: list[tuple[Endpoint, tuple[str, ...]]] = [
        (_MX, ("--tls",)),
        (_MX, ()),
        (_SMTPS, ("--tlsc",)),
        (_EXIM, ("--tls",)),
        (_SUBMISSION, ("--tls", "--auth", "PLAIN", "--au", USER, "--ap", PASSWORD)),
    ]
    for number in range(60):
        server, how = ways[number % len(ways)]
        client = client_address(_SWAKS), _FIRST_SWAKS_PORT + number
        yield partial(run_swaks, lab.network.client, server, client, *common, *how)


def _interleaved(lists: Iterator[list[Telling]]) -> Iterator[Telling]:
    """All of them, each list spread over the whole."""
    places = [(place / len(some), one) for some in lists for place, one in enumerate(some)]
    return (one for _, one in sorted(places, key=lambda pair: pair[0]))
