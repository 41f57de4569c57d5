import ssl
from pathlib import Path

import pytest

from tests.monitor.tls.real_tls import (
    Transcript,
    Wire,
    client_context,
    make_certificate,
    server_context,
    talk,
)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session", params=["TLSv1", "TLSv1_2", "TLSv1_3"])
def mail_session(request: pytest.FixtureRequest, certificate: Path) -> Transcript:
    """A handshake and two commands, in each version."""
    version = ssl.TLSVersion[request.param]
    return talk(Wire(client_context(None, version), server_context(certificate, version)))
