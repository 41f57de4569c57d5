"""Who may have an answer: rate_limit and basic_auth_users, in the order of exporter-toolkit."""

import base64
import binascii
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from monitor.metrics.pages import TEXT, Answer
from monitor.metrics.web.rate_limit import TokenBucket
from monitor.metrics.web.settings import WebSettings

if TYPE_CHECKING:  # bcrypt is loaded where somebody has passwords
    from monitor.metrics.web.passwords import Passwords


class Gate:
    """For one event loop's thread."""

    def __init__(self) -> None:
        """Open to all."""
        self._bucket: TokenBucket | None = None
        self._passwords: Passwords | None = None

    def replace(self, web: WebSettings) -> None:
        self._bucket = TokenBucket(web.rate_limit, time.monotonic()) if web.rate_limit is not None else None
        if not web.users:
            self._passwords = None
        elif self._passwords is not None:
            self._passwords.replace(web.users)
        else:
            from monitor.metrics.web.passwords import Passwords  # noqa: PLC0415

            self._passwords = Passwords(web.users)

    async def refusal(self, headers: Mapping[bytes, bytes], address: str) -> Answer | None:
        """What to answer to a request that is refused. `headers` have their names in lower case; `address` is
        whoever asks."""
        if self._bucket is not None and not self._bucket.take(time.monotonic()):
            return Answer(429, b"Too many requests: see rate_limit in the web configuration\n")
        if self._passwords is None:
            return None
        credentials = _credentials(headers.get(b"authorization", b""))
        if credentials is None:
            return _WHO_ARE_YOU
        from monitor.metrics.web.passwords import TooManyChecksError  # noqa: PLC0415

        try:
            is_right = await self._passwords.is_right(*credentials, address)
        except TooManyChecksError:
            return Answer(503, b"Too many passwords are being tried\n", {**TEXT, "Retry-After": "1"})
        return None if is_right else _WHO_ARE_YOU


_WHO_ARE_YOU = Answer(401, b"Unauthorized\n", {**TEXT, "WWW-Authenticate": 'Basic realm="smtp-horizon"'})


def _credentials(authorization: bytes) -> tuple[str, bytes] | None:
    """User and password of a header (RFC 7617); None where it has none."""
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, UnicodeDecodeError):
        return None
