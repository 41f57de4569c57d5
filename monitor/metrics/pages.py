"""What the metrics server has to show: the metrics, and a page that leads to them."""

import asyncio
import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Final

from prometheus_client.exposition import choose_encoder, gzip_accepted

from monitor.metrics.collector import VERSION, MonitorCollector, registry_of

REST: Final = 3
"""After the metrics were rendered, as many times as long as that took. It takes some 15 ms, so who waits for
the next does not notice; and however many ask, a quarter of one processor is the most that they get."""

_LANDING_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>smtp-horizon</title></head>
<body><h1>smtp-horizon {version}</h1>
<p>How much of your mail is beyond the reach of a stream watcher?</p>
<p><a href="/metrics">Metrics</a></p></body></html>
"""

TEXT: Final = {"Content-Type": "text/plain; charset=utf-8"}

# The forms in which Prometheus, of all its versions, asks for metrics. Whoever asks for another gets text, as
# the number of forms must have a bound: each is rendered by itself.
_FORMATS: Final = {
    content_type: encoder
    for accept in (
        "",
        "application/openmetrics-text",
        "application/openmetrics-text;version=1.0.0",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
        "text/plain;version=1.0.0",
        "text/plain;version=1.0.0;escaping=allow-utf-8",
    )
    for encoder, content_type in (choose_encoder(accept),)
}
_PLAIN_TEXT: Final = choose_encoder("")[1]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: TEXT)


class Pages:
    """For one event loop's thread."""

    def __init__(self, collector: MonitorCollector) -> None:
        self._registry = registry_of(collector, with_process=True)
        landing_page = _LANDING_PAGE.format(version=escape(VERSION)).encode()
        self._landing_page = Answer(200, landing_page, {"Content-Type": "text/html; charset=utf-8"})
        self._next: dict[tuple[str, bool], asyncio.Task[Answer]] = {}
        self._turn = asyncio.Lock()
        self._free_at = 0.0

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
        content_type = choose_encoder(headers.get(b"accept", b"").decode("latin-1"))[1]
        form = (
            content_type if content_type in _FORMATS else _PLAIN_TEXT,
            gzip_accepted(headers.get(b"accept-encoding", b"").decode("latin-1")),
        )
        # All who come before it is rendered get the same: five hundred at once cost no more than one.
        rendering = self._next.get(form)
        if rendering is None:
            rendering = self._next[form] = asyncio.create_task(self._render(form))
        return await asyncio.shield(rendering)

    async def _render(self, form: tuple[str, bool]) -> Answer:
        loop = asyncio.get_running_loop()
        async with self._turn:
            await asyncio.sleep(max(0.0, self._free_at - loop.time()))
            del self._next[form]  # who comes from here on sees what is counted from here on
            begin = loop.time()
            content_type, is_gzip = form
            body = _FORMATS[content_type](self._registry)
            headers = {"Content-Type": content_type}
            if is_gzip:
                body = gzip.compress(body)
                headers["Content-Encoding"] = "gzip"
            self._free_at = loop.time() + REST * (loop.time() - begin)
            return Answer(200, body, headers)
