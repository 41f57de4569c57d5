"""The real program on the loopback interface, as for the tests of the command line."""

from tests.monitor.cli.conftest import eventually, smtp_server, start_watch

__all__ = ["eventually", "smtp_server", "start_watch"]
