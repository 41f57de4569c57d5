"""The two hello messages, RFC 8446 sections 4.1.2 and 4.1.3; TLS 1.2 and older differ in nothing read here.

A hello that contradicts its own lengths is None as a whole; an extension that does is as if it were empty.
"""

from struct import unpack
from typing import Final, NamedTuple

# Message types, RFC 8446 section 4.
CLIENT_HELLO: Final = 1
SERVER_HELLO: Final = 2

# Extension types: RFC 6066 section 3, RFC 8446 section 4.2, RFC 7301 section 3.1.
SERVER_NAME: Final = 0
SIGNATURE_ALGORITHMS: Final = 13
ALPN: Final = 16
EARLY_DATA: Final = 42
SUPPORTED_VERSIONS: Final = 43

# The random of a ServerHello that is a HelloRetryRequest: SHA-256 of that word, RFC 8446 section 4.1.3.
RETRY_RANDOM: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")

_VERSION_AND_RANDOM_BYTES: Final = 2 + 32


class ClientHello(NamedTuple):
    legacy_version: int
    ciphers: tuple[int, ...]
    extensions: tuple[int, ...]
    """Their types, in the order sent."""
    supported_versions: tuple[int, ...]
    signature_algorithms: tuple[int, ...]
    server_name: bytes | None
    alpn: bytes | None
    """The first protocol offered."""


class ServerHello(NamedTuple):
    version: int
    """What was selected: by supported_versions where that stands, else by the version field."""
    cipher: int
    is_retry: bool


def parse_client_hello(body: bytes) -> ClientHello | None:
    """Reads the body of a ClientHello; None where it is malformed."""
    try:
        legacy_version = _number(body, 0)
        _, position = _vector(body, _VERSION_AND_RANDOM_BYTES, 1)
        ciphers, position = _vector(body, position, 2)
        _, position = _vector(body, position, 1)
        types, contents = _extensions(body, position)
        return ClientHello(
            legacy_version=legacy_version,
            ciphers=_numbers(ciphers),
            extensions=types,
            supported_versions=_number_list(contents.get(SUPPORTED_VERSIONS, b""), 1),
            signature_algorithms=_number_list(contents.get(SIGNATURE_ALGORITHMS, b""), 2),
            server_name=_first_name(contents.get(SERVER_NAME, b"")),
            alpn=_first_protocol(contents.get(ALPN, b"")),
        )
    except _MalformedError:
        return None


def parse_server_hello(body: bytes) -> ServerHello | None:
    """Reads the body of a ServerHello or HelloRetryRequest; None where it is malformed."""
    try:
        version = _number(body, 0)
        _, position = _vector(body, _VERSION_AND_RANDOM_BYTES, 1)
        cipher = _number(body, position)
        _, contents = _extensions(body, position + 3)  # behind the cipher and the compression method
        selected = contents.get(SUPPORTED_VERSIONS, b"")
        return ServerHello(
            version=_number(selected, 0) if selected else version,
            cipher=cipher,
            is_retry=body[2:_VERSION_AND_RANDOM_BYTES] == RETRY_RANDOM,
        )
    except _MalformedError:
        return None


class _MalformedError(Exception):
    """A length points past the end. Never leaves this module."""


def _number(data: bytes, position: int) -> int:
    """Two bytes."""
    if position + 2 > len(data):
        raise _MalformedError
    return data[position] << 8 | data[position + 1]


def _vector(data: bytes, position: int, length_bytes: int) -> tuple[bytes, int]:
    """A vector with a length of one or two bytes in front, RFC 8446 section 3.4: its content, and the
    position behind it."""
    start = position + length_bytes
    if start > len(data):
        raise _MalformedError
    end = start + (data[position] if length_bytes == 1 else data[position] << 8 | data[position + 1])
    if end > len(data):
        raise _MalformedError
    return data[start:end], end


def _numbers(content: bytes) -> tuple[int, ...]:
    if len(content) % 2:
        raise _MalformedError
    return unpack(f">{len(content) // 2}H", content)


def _extensions(body: bytes, position: int) -> tuple[tuple[int, ...], dict[int, bytes]]:
    """The types in order, and the content of the first of each type. None at all in hellos before TLS 1.0's
    extensions (RFC 3546 section 2.3)."""
    if position == len(body):
        return (), {}
    block, _ = _vector(body, position, 2)
    types: list[int] = []
    contents: dict[int, bytes] = {}
    position = 0
    while position < len(block):
        extension_type = _number(block, position)
        content, position = _vector(block, position + 2, 2)
        types.append(extension_type)
        contents.setdefault(extension_type, content)
    return tuple(types), contents


def _number_list(content: bytes, length_bytes: int) -> tuple[int, ...]:
    try:
        return _numbers(_vector(content, 0, length_bytes)[0])
    except _MalformedError:
        return ()


def _first_name(content: bytes) -> bytes | None:
    """The first name of the list, if it is a host_name (type 0, the only one: RFC 6066 section 3)."""
    try:
        names, _ = _vector(content, 0, 2)
        return _vector(names, 1, 2)[0] if names[:1] == b"\0" else None
    except _MalformedError:
        return None


def _first_protocol(content: bytes) -> bytes | None:
    try:
        protocols, _ = _vector(content, 0, 2)
        return _vector(protocols, 0, 1)[0]
    except _MalformedError:
        return None
