"""How far behind the wire a watch reads: smtp_monitor_lag_seconds."""

import time


class Lag:
    """Written by the capture thread after every batch, read at a scrape."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._newest_ns: int | None = None
        """Time stamp of the packet that was read last."""

    def read_until(self, newest_ns: int) -> None:
        """A batch was read, whose last packet has this time stamp."""
        self._newest_ns = newest_ns
        self._follow()

    def nothing_read(self, is_caught_up: bool) -> None:
        """An empty batch came: because nothing waits, or because what waits takes its time."""
        if is_caught_up:
            self.seconds, self._newest_ns = 0.0, None
        elif self._newest_ns is not None:
            self._follow()

    def _follow(self) -> None:
        assert self._newest_ns is not None
        # Not below zero: the clock may have been set back since.
        self.seconds = max(0.0, (time.time_ns() - self._newest_ns) / 1e9)
