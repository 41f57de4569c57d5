"""The bar that a long capture file gets."""

import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_SECONDS: Final = 1.0  # what is over sooner needs no bar


class LateProgress:
    """A progress bar on standard error, which appears only if the work takes long; rich is imported then."""

    def __init__(self) -> None:
        self.total_bytes: int | None = None
        self._began_at = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, consumed_bytes: int) -> None:
        if self._progress is None:
            if time.monotonic() - self._began_at < PATIENCE_SECONDS:
                return
            self._progress = self._begin()
        assert self._task is not None
        self._progress.update(self._task, completed=consumed_bytes)

    def _begin(self) -> "Progress":
        from rich.console import Console  # noqa: PLC0415 - see the class
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn  # noqa: PLC0415

        columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
        progress = Progress(*columns, console=Console(file=sys.stderr), transient=True)
        self._task = progress.add_task("", total=self.total_bytes)
        progress.start()
        return progress

    def close(self) -> None:
        """Takes the bar away."""
        if self._progress is not None:
            self._progress.stop()
