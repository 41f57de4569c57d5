"""What a web configuration comes to; without one, the defaults here."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RateLimit:
    interval_seconds: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebSettings:
    tls: ssl.SSLContext | None = None
    """None: plain HTTP."""
    client_names: frozenset[str] | None = None
    """A client's certificate must bear one of these as a subject alternative name. None: any will do."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to every answer."""
    rate_limit: RateLimit | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    """Name -> bcrypt hash. Empty: nobody needs a password."""
