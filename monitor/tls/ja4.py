"""JA4, the fingerprint of a TLS client, by FoxIO's technical description of it (JA4.md; BSD 3-Clause).

    t13d1516h2_8daaf6152771_e5627efa2ab1
    │││ │ │ │  │            └ SHA-256 of the sorted extensions (but SNI and ALPN) and the signature algorithms
    │││ │ │ │  └ SHA-256 of the sorted cipher suites
    │││ │ │ └ first and last character of the first ALPN protocol
    │││ │ └ number of extensions
    │││ └ number of cipher suites
    ││└ d: a name was asked for (SNI); i: none
    │└ highest version
    └ TLS over TCP

GREASE values (RFC 8701) count nowhere.
"""

from functools import lru_cache
from hashlib import sha256
from struct import pack
from typing import Final

from monitor.tls.hellos import ALPN, SERVER_NAME, ClientHello

_VERSION_CODES: Final = {
    0x0002: "s2",
    0x0300: "s3",
    0x0301: "10",
    0x0302: "11",
    0x0303: "12",
    0x0304: "13",
}
_HASH_CHARACTERS: Final = 12
_MAX_COUNT: Final = 99  # two characters
_FINGERPRINTS_REMEMBERED: Final = 256
"""Chosen above the number of TLS libraries and configurations that a mail server hears from in an hour."""


def ja4(hello: ClientHello) -> str:
    """The fingerprint of a ClientHello that came over TCP."""
    return _fingerprint(
        hello.legacy_version,
        hello.ciphers,
        hello.extensions,
        hello.supported_versions,
        hello.signature_algorithms,
        alpn=hello.alpn,
    )


@lru_cache(_FINGERPRINTS_REMEMBERED)
def _fingerprint(
    legacy_version: int,
    all_ciphers: tuple[int, ...],
    all_extensions: tuple[int, ...],
    supported_versions: tuple[int, ...],
    signature_algorithms: tuple[int, ...],
    *,
    alpn: bytes | None,
) -> str:
    ciphers = _without_grease(all_ciphers)
    extensions = _without_grease(all_extensions)
    version = max(_without_grease(supported_versions), default=legacy_version)
    hashed = _hex(sorted([extension for extension in extensions if extension not in (SERVER_NAME, ALPN)]))
    algorithms = _hex(_without_grease(signature_algorithms))
    return (
        f"t{_VERSION_CODES.get(version, '00')}"
        f"{'d' if SERVER_NAME in extensions else 'i'}"
        f"{min(len(ciphers), _MAX_COUNT):02}"
        f"{min(len(extensions), _MAX_COUNT):02}"
        f"{_alpn_characters(alpn)}"
        f"_{_short_hash(_hex(sorted(ciphers)))}"
        f"_{_short_hash(f'{hashed}_{algorithms}' if hashed and algorithms else hashed)}"
    )


def _without_grease(values: tuple[int, ...]) -> list[int]:
    """RFC 8701 section 2: 0x0A0A, 0x1A1A, ... 0xFAFA."""
    return [value for value in values if value & 0x0F0F != 0x0A0A or value >> 8 != value & 0xFF]


def _hex(values: list[int]) -> str:
    """Four digits each, with commas."""
    return pack(f">{len(values)}H", *values).hex(",", 2)


def _short_hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS] if text else "0" * _HASH_CHARACTERS


def _alpn_characters(protocol: bytes | None) -> str:
    if not protocol:
        return "00"
    ends = protocol[:1] + protocol[-1:]
    if ends.isalnum():
        return ends.decode("ascii")
    digits = protocol.hex()
    return digits[0] + digits[-1]
