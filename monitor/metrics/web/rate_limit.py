"""rate_limit: a bucket of tokens."""

from monitor.metrics.web.settings import RateLimit


class TokenBucket:
    """Holds `burst` tokens at first and at most, and gets one each `interval_seconds`."""

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._at = now

    def take(self, now: float) -> bool:
        """Whether there was one left. `now`: seconds of a clock that does not go back."""
        fresh = (now - self._at) / self._limit.interval_seconds
        self._tokens = min(self._limit.burst, self._tokens + fresh)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
