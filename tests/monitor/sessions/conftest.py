import ssl
from pathlib import Path

import pytest

from tests.monitor.tls.real_tls import Transcript, client_context, make_certificate, server_context, talk
from tests.monitor.tls.real_tls import Wire as TlsWire


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def tls_mail(certificate: Path) -> Transcript:
    """A TLS 1.3 handshake and two commands."""
    version = ssl.TLSVersion.TLSv1_3
    return talk(TlsWire(client_context(None, version), server_context(certificate, version)))


@pytest.fixture(scope="session")
def failed_tls(certificate: Path) -> Transcript:
    """A client that does not trust the certificate: its encrypted alert ends the handshake."""
    version = ssl.TLSVersion.TLSv1_3
    context = client_context(None, version)
    context.verify_mode = ssl.CERT_REQUIRED
    wire = TlsWire(context, server_context(certificate, version))
    wire.shake_hands()
    assert wire.failures
    return wire.transcript
