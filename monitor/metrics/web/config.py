"""The file of --web-config: TLS and basic authentication for /metrics.

Keys and meanings are those of Prometheus' exporters
(https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md), so that whoever has
such a file for node_exporter names that. What Python's ssl can't do as Go's crypto/tls does is refused, for
who wrote it relies on it.
"""

import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from monitor.metrics.web.settings import RateLimit, WebSettings
from monitor.metrics.web.tls import TlsConfig, TlsConfigError, server_context

Read = Callable[[Path], bytes]
"""The whole of a file. Raises OSError."""

_HEADERS: Final[dict[str, tuple[str, ...]]] = {
    # Those that exporter-toolkit allows, and their values where it lists them (web/handler.go).
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}

# Version 2, in the revisions that are the same for passwords that are text; costs as bcrypt has them.
_BCRYPT_HASH: Final = re.compile(r"\$2[aby]?\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")

_LEVELS: Final = 3  # of the file: sections, keys, and the names of headers

_DURATION: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")  # Go's time.ParseDuration
_UNIT_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class WebConfigError(Exception):
    """One line: which file, where in it, what is wrong, what to do."""


class _HttpConfig(msgspec.Struct, forbid_unknown_fields=True):
    http2: bool = True
    """A permission, of which no use is made: every client that can HTTP/2 can HTTP/1.1, and is told so by
    ALPN."""
    headers: dict[str, str] = {}


class _RateLimitConfig(msgspec.Struct, forbid_unknown_fields=True):
    interval: str = "0"
    burst: int = 0


class _Config(msgspec.Struct, forbid_unknown_fields=True):
    tls_server_config: TlsConfig = msgspec.field(default_factory=TlsConfig)
    http_server_config: _HttpConfig = msgspec.field(default_factory=_HttpConfig)
    rate_limit: _RateLimitConfig = msgspec.field(default_factory=_RateLimitConfig)
    basic_auth_users: dict[str, str] = {}


def load(path: str, read: Read = Path.read_bytes) -> WebSettings:
    """Reads the file, and the files that it names. Raises WebConfigError."""
    try:
        config = _parse(read(Path(path)))
        tls = config.tls_server_config
        return WebSettings(
            tls=server_context(tls, Path(path).parent, read),
            client_names=frozenset(tls.client_allowed_sans) if tls.client_allowed_sans is not None else None,
            headers=_checked_headers(config.http_server_config.headers),
            rate_limit=_rate_limit(config.rate_limit),
            users=_checked_users(config.basic_auth_users),
        )
    except OSError as error:
        where = f", named in {path}" if error.filename not in (None, path, Path(path)) else ""
        raise WebConfigError(
            f"{error.filename or path}{where}: cannot be read: {error.strerror}; check --web-config"
        ) from error
    except TlsConfigError as error:
        raise WebConfigError(f"{path}: tls_server_config: {error}") from error
    except _Wrong as error:
        raise WebConfigError(f"{path}: {error}") from error


class _Wrong(Exception):
    """One line, without the file."""


def _parse(content: bytes) -> _Config:
    try:
        # A SafeLoader: it makes nothing but text, lists and maps.
        tree = yaml.load(content, _Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise _Wrong(f"{line}{error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _Wrong("it is no YAML: a character that has no place there") from error
    except RecursionError as error:
        raise _Wrong("it is nested too deeply; there are three levels") from error
    try:
        # Not strict, as numbers come as text.
        return msgspec.convert(_without_nulls(tree, _LEVELS) or {}, _Config, strict=False)
    except msgspec.ValidationError as error:
        raise _Wrong(str(error)) from error


class _Loader(yaml.SafeLoader):
    """Reads a scalar as Go does for a field that is a string: `on` and `~` apart, it is what is written."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {name for name in names if isinstance(name, Hashable) and names.count(name) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{min(map(str, twice))} is there twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: kept
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if (
        kept := [
            rule for rule in resolvers if rule[0] in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")
        ]
    )
}
# No other tag has a place here; and for some, as `!!int x`, PyYAML raises what is no YAMLError.
_Loader.yaml_constructors = {
    tag: maker
    for tag, maker in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("bool", "map", "null", "seq", "str")
}


def _without_nulls(tree: Any, levels: int) -> Any:
    """A key without a value is one that was left out. No deeper than so many levels: aliases may make a small
    file a large tree, or one that holds itself."""
    if isinstance(tree, dict) and levels:
        return {key: _without_nulls(value, levels - 1) for key, value in tree.items() if value is not None}
    return tree


def _checked_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        where = f"http_server_config.headers.{name}"
        if name not in _HEADERS:
            raise _Wrong(f"{where}: can't be set; there are {', '.join(_HEADERS)}")
        if _HEADERS[name] and value not in _HEADERS[name]:
            raise _Wrong(f"{where}: is {value!r}, must be {' or '.join(_HEADERS[name])}")
        if not (value.isascii() and value.isprintable()):
            raise _Wrong(f"{where}: has a character that no header may have")
    return {name: value.strip() for name, value in headers.items() if value.strip()}


def _checked_users(users: dict[str, str]) -> dict[str, str]:
    for name, hashed in users.items():
        if not _BCRYPT_HASH.fullmatch(hashed):  # which is not said: it may be the password
            raise _Wrong(f"basic_auth_users.{name}: is no bcrypt hash; make one with htpasswd -nBC 10 {name}")
        if ":" in name:
            raise _Wrong(f"basic_auth_users.{name}: a colon ends the name (RFC 7617), so nobody can be this")
    return users


def _rate_limit(config: _RateLimitConfig) -> RateLimit | None:
    seconds = _seconds(config.interval)
    return RateLimit(seconds, config.burst) if seconds > 0 else None


def _seconds(duration: str) -> float:
    if duration.isascii() and duration.isdigit():
        return int(duration) * 1e-9  # a number without a unit is Go's own: nanoseconds
    parts = _DURATION.findall(duration)
    if not parts or "".join(map("".join, parts)) != duration:
        raise _Wrong(f"rate_limit.interval: {duration!r} is no duration; give it as 1s or 500ms")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
