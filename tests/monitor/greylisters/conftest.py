"""Real TLS for the transcripts of reach models: the same as that of the sessions' tests."""

from tests.monitor.sessions.conftest import certificate, failed_tls, tls_mail

__all__ = ["certificate", "failed_tls", "tls_mail"]
