"""What the metrics server has to show: the metrics, and a page that leads to them."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Final

from monitor.metrics.collector import VERSION
from monitor.metrics.negotiation import Format, choose_format, gzip_is_preferred
from monitor.metrics.snapshot import registry_in
from monitor.metrics.web.rate_limit import TokenBucket
from monitor.metrics.web.settings import RateLimit

SNAPSHOTS: Final = RateLimit(interval_seconds=0.5, burst=4)
"""How often `watch` is asked for a snapshot, however many ask for metrics. Chosen because two Prometheus that
scrape every second get a new one each time, and a person who asks now and then does too."""
AGE_MAX_SECONDS: Final = 1.0
"""Of a snapshot that serves another client as well."""

_LANDING_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>smtp-horizon</title></head>
<body><h1>smtp-horizon {version}</h1>
<p>How much of your mail is beyond the reach of a stream watcher?</p>
<p><a href="/metrics">Metrics</a></p></body></html>
"""

TEXT: Final = {"Content-Type": "text/plain; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: TEXT)


class Pages:
    """For one event loop's thread."""

    def __init__(self, take_snapshot: Callable[[], Awaitable[bytes]]) -> None:
        self._take_snapshot = take_snapshot
        landing_page = _LANDING_PAGE.format(version=escape(VERSION)).encode()
        self._landing_page = Answer(200, landing_page, {"Content-Type": "text/html; charset=utf-8"})
        self._bucket: TokenBucket | None = None
        self._latest: _Renderings | None = None
        self._taking: asyncio.Task[_Renderings] | None = None

    async def answer(self, method: bytes, path: bytes, headers: Mapping[bytes, bytes]) -> Answer:
        """GET and HEAD of `/metrics` and of the landing page; nothing else is there.

        `headers` have their names in lower case. The answer to HEAD has the body that GET would have.
        """
        if path not in (b"/", b"/metrics"):
            return Answer(404, b"Not found: metrics are at /metrics\n")
        if method not in (b"GET", b"HEAD"):
            return Answer(405, b"Only GET and HEAD\n", {**TEXT, "Allow": "GET, HEAD"})
        if path == b"/":
            return self._landing_page
        renderings = await self._current()
        return renderings.answer(
            choose_format(headers.get(b"accept", b"").decode("latin-1")),
            is_gzip=gzip_is_preferred(headers.get(b"accept-encoding", b"").decode("latin-1")),
        )

    async def _current(self) -> "_Renderings":
        """A new snapshot where one may be taken, else the latest."""
        now = asyncio.get_running_loop().time()
        latest = self._latest
        is_young = latest is not None and now - latest.asked_at < AGE_MAX_SECONDS
        if self._taking is None and (self._may_take(now) or not is_young):
            self._taking = asyncio.create_task(self._take(now))
        elif latest is not None and is_young:
            return latest
        assert self._taking is not None
        return await asyncio.shield(self._taking)  # others may wait for it, too

    def _may_take(self, now: float) -> bool:
        if self._bucket is None:
            self._bucket = TokenBucket(SNAPSHOTS, now)
        return self._bucket.take(now)

    async def _take(self, now: float) -> "_Renderings":
        try:
            self._latest = _Renderings(await self._take_snapshot(), now)
            return self._latest
        finally:
            self._taking = None


class _Renderings:
    """Of one snapshot; each made when it is asked for first."""

    def __init__(self, snapshot: bytes, asked_at: float) -> None:
        self.asked_at = asked_at
        self._registry = registry_in(snapshot)
        self._made: dict[tuple[str, bool], Answer] = {}

    def answer(self, chosen: Format, *, is_gzip: bool) -> Answer:
        made = self._made.get((chosen.content_type, is_gzip))
        if made is None:
            headers = {"Content-Type": chosen.content_type, "Vary": "Accept, Accept-Encoding"}
            if is_gzip:
                body = gzip.compress(self.answer(chosen, is_gzip=False).body)
                headers["Content-Encoding"] = "gzip"
            else:
                body = chosen.render(self._registry)
            made = self._made[chosen.content_type, is_gzip] = Answer(200, body, headers)
        return made
