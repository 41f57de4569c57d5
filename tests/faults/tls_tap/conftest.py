"""The lab that tests/tls_tap has."""

from tests.tls_tap.conftest import lab

__all__ = ["lab"]
