"""basic_auth_users: who knows one of the passwords.

bcrypt is slow on purpose: a check takes a twentieth of a second at the usual cost, and seconds at high ones.
So a password that was right once is known again at once; and whoever tries wrong ones gets a fifth of one
processor at most, and a short queue, beside a mail server that has better things to do.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Mapping
from threading import Thread
from typing import Final

import bcrypt

REMEMBERED_MAX: Final = 100  # as exporter-toolkit
CHECKS_MAX: Final = 16  # that wait for their turn, or have it; a second of them, at the usual cost
CHECKS_OF_ADDRESS_MAX: Final = 4  # so that one address can't fill the queue
REST: Final = 4  # after a wrong password, as many times as long as it took

_PASSWORD_BYTES_MAX: Final = 72  # bcrypt looks at no more, and its library refuses them
# Of a password that nobody knows: bcrypt needs something to compare with, for who is not there.
_COST_MIN: Final = 4
_NOBODYS_HASH: Final = bcrypt.hashpw(secrets.token_bytes(18), bcrypt.gensalt(_COST_MIN)).decode()


class TooManyChecksError(Exception):
    """The queue is full: to be tried again."""


class Passwords:
    """For one event loop's thread; the checks are in threads of their own, one at a time."""

    def __init__(self, users: Mapping[str, str]) -> None:
        """Name -> bcrypt hash."""
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, None] = {}  # the one used last is the last
        self._checks: dict[bytes, asyncio.Task[bool]] = {}
        self._of_address: Counter[str] = Counter()
        self._turn = asyncio.Lock()
        self._free_at = 0.0
        self.replace(users)

    def replace(self, users: Mapping[str, str]) -> None:
        """What is remembered of a user stays as long as his hash does: it is part of the key."""
        self._users = dict(users)
        self._cost_max = max(map(_cost, users.values()), default=_COST_MIN)

    async def is_right(self, user: str, password: bytes, address: str) -> bool:
        """`address`: whoever asks. Raises TooManyChecksError."""
        hashed = self._users.get(user, _nobodys_hash(self._cost_max))
        # Not the password itself: it would lie in memory as long as this process lives.
        digest = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (user.encode(), hashed.encode(), password):
            digest.update(len(part).to_bytes(8, "big") + part)
        key = digest.digest()
        if key in self._right:
            self._remember(key)
            return True
        check = self._checks.get(key)
        if check is None:
            if len(self._checks) >= CHECKS_MAX or self._of_address[address] >= CHECKS_OF_ADDRESS_MAX:
                raise TooManyChecksError
            check = asyncio.create_task(self._check(key, user, hashed, password, address))
            self._checks[key] = check
            self._of_address[address] += 1
        return await asyncio.shield(check)  # others may wait for it, too

    async def _check(self, key: bytes, user: str, hashed: str, password: bytes, address: str) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with self._turn:
                await asyncio.sleep(max(0.0, self._free_at - loop.time()))
                begin = loop.time()
                is_right = await _matches(password, hashed, self._cost_max) and user in self._users
                if is_right:
                    self._remember(key)
                else:
                    self._free_at = loop.time() + REST * (loop.time() - begin)
                return is_right
        finally:
            del self._checks[key]
            self._of_address -= Counter((address,))  # forgets addresses with none left

    def _remember(self, key: bytes) -> None:
        self._right.pop(key, None)
        self._right[key] = None
        if len(self._right) > REMEMBERED_MAX:
            del self._right[next(iter(self._right))]


def _cost(hashed: str) -> int:
    return int(hashed.split("$")[2])


def _nobodys_hash(cost: int) -> str:
    return _NOBODYS_HASH.replace(f"${_COST_MIN:02}$", f"${cost:02}$", 1)


def _matches_in_equal_time(password: bytes, hashed: str, cost_max: int) -> bool:
    """A wrong password takes as long as with the dearest hash that there is, so that nobody sees by the time
    whose name is known. A step of the cost doubles the time: 2^c + (2^c + 2^(c+1) + ... + 2^(m-1)) = 2^m."""
    password = password[:_PASSWORD_BYTES_MAX]
    cost = _cost(hashed)
    try:
        if bcrypt.checkpw(password, hashed.encode()):
            return True
    except ValueError:  # a hash that looks like one, and is none
        bcrypt.checkpw(password, _nobodys_hash(cost).encode())
    for more in range(cost, cost_max):
        bcrypt.checkpw(password, _nobodys_hash(more).encode())
    return False


async def _matches(password: bytes, hashed: str, cost_max: int) -> bool:
    """In a thread that nobody waits for when the program ends: the highest costs take days."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bool] = loop.create_future()

    def give(matches: bool) -> None:
        if not answer.done():
            answer.set_result(matches)

    def check() -> None:
        matches = _matches_in_equal_time(password, hashed, cost_max)
        try:
            loop.call_soon_threadsafe(give, matches)
        except RuntimeError:  # the loop has ended meanwhile
            return

    Thread(target=check, name="password", daemon=True).start()
    return await answer
