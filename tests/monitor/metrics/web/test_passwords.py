"""Basic authentication and the rate limit, from outside; and what a flood of wrong passwords may take."""

import asyncio
import base64
import http.client
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import Final

import bcrypt
import pytest

from monitor.metrics.server import REQUEST_SECONDS
from monitor.metrics.web.passwords import (
    CHECKS_MAX,
    CHECKS_OF_ADDRESS_MAX,
    REMEMBERED_MAX,
    Passwords,
    TooManyChecksError,
)
from monitor.metrics.web.rate_limit import TokenBucket
from monitor.metrics.web.settings import RateLimit
from tests.monitor.metrics.web.conftest import CERTIFIED, Served

Serve = Callable[[str], Served]


def _hash(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


ALICE: Final = _hash("alice's: pässword").replace("$2b$", "$2y$")  # as htpasswd writes it
LONG: Final = "x" * 80
USERS: Final = f"basic_auth_users:\n  alice: {ALICE}\n  bob: {_hash('bob')}\n  long: {_hash(LONG[:72])}\n"


def test_who_has_a_password_gets_the_metrics(serve: Serve) -> None:
    served = serve(CERTIFIED + USERS)
    for _ in range(2):  # the second time it is remembered
        answer = served.curl("--user", "alice:alice's: pässword")
        assert answer.status == 200
        assert "smtp_sessions_total" in answer.body
    assert served.curl("--user", "bob:bob").status == 200


def test_who_has_none_is_asked_for_one_on_every_page(serve: Serve) -> None:
    served = serve(USERS)
    for path in ("/metrics", "/", "/nowhere"):
        for options in ((), ("--user", "alice:bob"), ("--user", "alice:"), ("--user", "mallory:bob"),
                        ("--header", "Authorization: Bearer abc"), ("--header", "Authorization: Basic !"),
                        ("--header", "Authorization: Basic /w=="), ("--user", "bob:\0")):  # fmt: skip
            answer = served.curl(*(option.replace("\0", "%00") for option in options), path=path)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == 'Basic realm="smtp-horizon"'
            assert "smtp_" not in answer.body


def test_bytes_after_the_seventy_second_count_as_little_as_for_other_exporters(serve: Serve) -> None:
    served = serve(USERS)
    assert served.curl("--user", f"long:{LONG}").status == 200
    assert served.curl("--user", f"long:{LONG[:71]}").status == 401


def test_a_password_that_was_taken_away_is_wrong_at_once(serve: Serve) -> None:
    served = serve(USERS)
    assert served.curl("--user", "bob:bob").status == 200
    served.reload(
        f"basic_auth_users:\n  bob: {_hash('new')}\n",
        is_in_force=lambda: served.curl("--user", "bob:new").status == 200,
    )
    assert served.curl("--user", "bob:bob").status == 401


def test_over_the_rate_limit_the_answer_is_429(serve: Serve) -> None:
    served = serve("rate_limit:\n  interval: 1h\n  burst: 3\n")
    assert [served.curl().status for _ in range(5)] == [200, 200, 200, 429, 429]
    assert serve("rate_limit: {interval: 1s, burst: 0}\n").curl().status == 429
    assert serve("rate_limit: {interval: 0, burst: 0}\n").curl().status == 200


def test_a_token_comes_each_interval_and_no_more_than_the_burst_are_kept() -> None:
    bucket = TokenBucket(RateLimit(interval_seconds=2.0, burst=2), now=100.0)
    assert [bucket.take(at) for at in (100.0, 100.0, 100.0, 101.0, 102.0, 103.0)] == [
        *(True, True, False, False, True, False)
    ]
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]


def _status(served: Served, user: str, password: str) -> int:
    host, port = served.server.url.removeprefix("http://").removesuffix("/metrics").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    connection.request("GET", "/", headers={"Authorization": f"Basic {credentials}"})
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_flood_of_wrong_passwords_is_mostly_turned_away_and_stops_no_known_scraper(
    serve: Serve,
) -> None:
    served = serve(f"basic_auth_users:\n  alice: {_hash('right', 10)}\n")
    assert _status(served, "alice", "right") == 200
    end = time.monotonic() + 3
    seen: set[int] = set()

    def try_wrong_ones(number: int) -> None:
        tried = 0
        while time.monotonic() < end:
            tried += 1
            with suppress(ConnectionError):  # on a machine that is busy: given up after ANSWER_SECONDS
                seen.add(_status(served, "alice" if number % 2 else "mallory", f"{number} {tried}"))

    with ThreadPoolExecutor(12) as flood:
        flooding = [flood.submit(try_wrong_ones, number) for number in range(12)]
        delays = []
        while time.monotonic() < end - 0.5:
            begin = time.monotonic()
            assert _status(served, "alice", "right") == 200
            delays.append(time.monotonic() - begin)
            time.sleep(0.1)
        for one in flooding:
            one.result()
    assert seen == {401, 503}, "most are not even tried"
    assert max(delays) < REQUEST_SECONDS, "it waits for none of them"


def _run(users: dict[str, str], tries: list[tuple[str, bytes, str]]) -> list[bool | type[Exception]]:
    """All at once; what each came to."""

    async def gather() -> list[bool | BaseException]:
        checked = Passwords(users)
        return await asyncio.gather(*(checked.is_right(*one) for one in tries), return_exceptions=True)

    return [type(one) if isinstance(one, Exception) else one is True for one in asyncio.run(gather())]


def test_the_queue_of_checks_is_bounded_for_one_address_and_for_all() -> None:
    users = {"bob": _hash("bob")}
    one = _run(users, [("bob", str(number).encode(), "192.0.2.1") for number in range(10)])
    assert one.count(TooManyChecksError) == 10 - CHECKS_OF_ADDRESS_MAX
    many = _run(users, [("bob", str(number).encode(), f"192.0.2.{number}") for number in range(40)])
    assert many.count(TooManyChecksError) == 40 - CHECKS_MAX
    same = _run(users, [("bob", b"bob", "192.0.2.1")] * 40)
    assert same == [True] * 40, "one check for all who ask the same"


def test_checks_run_one_at_a_time_and_rest_after_a_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[float, float]] = []

    def slow(_password: bytes, _hashed: bytes) -> bool:
        begin = time.monotonic()
        time.sleep(0.05)
        spans.append((begin, time.monotonic()))
        return False

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    _run({"bob": _hash("bob")}, [("bob", bytes([number]), str(number)) for number in range(4)])
    gaps = [after[0] - before[1] for before, after in pairwise(spans)]
    assert len(gaps) == 3
    assert min(gaps) > 0.15, "four times the 50 ms that one takes, but for the clock's grain"


@pytest.mark.parametrize("user", ["bob", "carol", "broken", "mallory"])
def test_a_wrong_password_is_the_same_work_whoever_it_is_said_to_be_of(
    user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = 0
    real = bcrypt.checkpw

    def noted(password: bytes, hashed: bytes) -> bool:
        nonlocal work
        is_right = real(password, hashed)
        work += 1 << int(hashed.split(b"$")[2])
        return is_right

    monkeypatch.setattr(bcrypt, "checkpw", noted)
    # A salt whose last character has bits that bcrypt's has not.
    broken = _hash("x", 5)[:28] + "/" + _hash("x", 5)[29:]
    with pytest.raises(ValueError, match="salt"):
        real(b"x", broken.encode())
    users = {"bob": _hash("bob", 4), "carol": _hash("carol", 7), "broken": broken}
    assert _run(users, [(user, b"x", "a")]) == [False]
    assert work == 1 << 7


def test_a_right_password_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    real = bcrypt.checkpw

    def noted(password: bytes, hashed: bytes) -> bool:
        seen.append(hashed[:7])
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", noted)
    assert _run({"bob": _hash("bob", 4), "carol": _hash("carol", 6)}, [("bob", b"bob", "a")]) == [True]
    assert seen == [b"$2b$04$"]


def test_what_is_remembered_has_a_bound_and_is_no_password() -> None:
    users = {str(number): _hash(f"secret {number}") for number in range(REMEMBERED_MAX + 20)}
    checked = Passwords(users)

    async def ask() -> None:
        for number in range(REMEMBERED_MAX + 20):
            assert await checked.is_right(str(number), f"secret {number}".encode(), "a")

    asyncio.run(ask())
    assert len(checked._right) == REMEMBERED_MAX
    assert b"secret" not in b"".join(checked._right)
    assert not checked._checks
    assert not checked._of_address
