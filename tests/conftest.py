"""What holds for all tests."""

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import settings

from scripts.native import PURE, outdated
from tests.lab import server

# A busy machine is slow, and no fault of the code's. CI tries the same examples every time, so that what it
# says of a change is about the change; everybody else tries new ones.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure() -> None:
    """Nobody is to look for a mistake in a source that is not what runs. And Ctrl-C and a closing terminal
    end what tests start, though a shell has those ignore the one whom it runs in its background, and nohup
    the other."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    changed = outdated()
    if changed:
        raise pytest.UsageError(
            f"not as it was compiled: {', '.join(changed)}; run `make setup`, or `{PURE}=1 make setup`"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Why a mail server did not answer, it alone knows."""
    report = yield
    if report.failed:
        report.sections += [(f"{one.name}, the end of its log", one.last_said()) for one in server.running]
    return report
