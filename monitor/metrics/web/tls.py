"""tls_server_config, as an SSLContext."""

import os
import ssl
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import msgspec

_VERSIONS: Final = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}

# Go's tls.CipherSuites(), which are those that exporter-toolkit knows, by OpenSSL's names.
_CIPHERS: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
_CIPHERS_OF_TLS13: Final = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
)
"""May be listed, and mean nothing: the list is for versions before 1.3, in Go, too."""

# As OpenSSL calls them. Python 3.11 can't give it X25519, 3.13 can.
_CURVES: Final = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}

_CLIENT_AUTH: Final = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_UNVERIFIED_CLIENT_AUTH: Final = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
"""OpenSSL asks for a certificate only to verify it; and one that nobody verified keeps nobody out."""


class TlsConfigError(Exception):
    """One line: which key, what is wrong."""


class TlsConfig(msgspec.Struct, forbid_unknown_fields=True):
    cert: str = ""
    key: str = ""
    client_ca: str = ""
    cert_file: str = ""
    key_file: str = ""
    client_auth_type: str = ""
    client_ca_file: str = ""
    cipher_suites: list[str] = []
    curve_preferences: list[str] = []
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    prefer_server_cipher_suites: bool = True
    client_allowed_sans: list[str] | None = None

    @property
    def is_wanted(self) -> bool:
        """As exporter-toolkit decides it: of what is only about ciphers and versions, no TLS comes."""
        return any(
            (self.cert, self.key, self.client_ca, self.cert_file, self.key_file, self.client_ca_file)
        ) or bool(self.client_auth_type)


def server_context(config: TlsConfig, folder: Path, read: Callable[[Path], bytes]) -> ssl.SSLContext | None:
    """None where no TLS is wanted. File names are relative to the folder. Raises TlsConfigError, and the
    OSError of `read`."""
    minimum = _looked_up("min_version", config.min_version, _VERSIONS)
    maximum = _looked_up("max_version", config.max_version, _VERSIONS)
    verify_mode = _verify_mode(config.client_auth_type)
    ciphers = _ciphers(config.cipher_suites)
    curves = [_looked_up("curve_preferences", name, _CURVES) for name in config.curve_preferences]
    _refuse_what_contradicts_itself(config, verify_mode)
    if not config.is_wanted:
        return None

    certificate = _content(config.cert_file, config.cert, folder, read)
    key = _content(config.key_file, config.key, folder, read)
    if not certificate or not key:
        raise TlsConfigError("cert and key are needed, or cert_file and key_file")
    authorities = _content(config.client_ca_file, config.client_ca, folder, read)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_certificate(context, certificate, key)
    if config.cipher_suites and not ciphers:
        minimum = max(minimum, ssl.TLSVersion.TLSv1_3)  # nothing is left for those before
    if minimum > maximum:
        raise TlsConfigError("no version lies between min_version and max_version")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # who asks for TLS 1.0 knows that it is old
        context.minimum_version = minimum
        context.maximum_version = maximum
    _set_ciphers(context, ciphers, minimum)
    if curves:
        _set_curves(context, curves)
    if not config.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # scrapes are seconds apart; no session waits for its return
    if verify_mode is not ssl.CERT_NONE:
        _verify_clients(context, verify_mode, authorities)
    return context


def names_in(certificate: Mapping[str, Any]) -> set[str]:
    """The subject alternative names of a certificate, as `ssl.SSLObject.getpeercert` has it: DNS names, mail
    addresses, IP addresses and URIs."""
    kinds: Iterable[tuple[str, str]] = certificate.get("subjectAltName", ())
    return {
        str(ip_address(name.strip())) if kind == "IP Address" else name
        for kind, name in kinds
        if kind in ("DNS", "email", "URI", "IP Address")
    }


def _verify_mode(client_auth_type: str) -> ssl.VerifyMode:
    if client_auth_type in _UNVERIFIED_CLIENT_AUTH:
        raise TlsConfigError(
            f"client_auth_type: {client_auth_type} verifies nothing and is not supported; "
            "take RequireAndVerifyClientCert or NoClientCert"
        )
    mode: ssl.VerifyMode = _looked_up("client_auth_type", client_auth_type, _CLIENT_AUTH)
    return mode


def _refuse_what_contradicts_itself(config: TlsConfig, verify_mode: ssl.VerifyMode) -> None:
    if verify_mode is ssl.CERT_NONE:
        for key in ("client_ca_file", "client_ca", "client_allowed_sans"):
            if getattr(config, key):
                raise TlsConfigError(
                    f"{key}: nobody is asked for a certificate; "
                    "set client_auth_type: RequireAndVerifyClientCert"
                )


def _content(file: str, inline: str, folder: Path, read: Callable[[Path], bytes]) -> bytes:
    return read(folder / file) if file else inline.encode()


def _load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    def no_passphrase() -> str:  # or OpenSSL would ask at the terminal
        raise TlsConfigError("the key is encrypted: give one that is not")

    try:
        with _as_file(certificate) as certificate_file, _as_file(key) as key_file:
            context.load_cert_chain(certificate_file, key_file, no_passphrase)
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise TlsConfigError(f"certificate and key can't be used: {reason}") from error


def _verify_clients(context: ssl.SSLContext, verify_mode: ssl.VerifyMode, authorities: bytes) -> None:
    # As in Go: every certificate in the file is trusted by itself, and without a file the system's are.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_mode = verify_mode
    if not authorities:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return
    try:
        with _as_file(authorities) as file:
            context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise TlsConfigError("client_ca_file or client_ca: no certificate in PEM is in it") from error


def _ciphers(names: list[str]) -> list[str]:
    known = {**_CIPHERS, **dict.fromkeys(_CIPHERS_OF_TLS13, "")}
    return [cipher for name in names if (cipher := _looked_up("cipher_suites", name, known))]


def _set_ciphers(context: ssl.SSLContext, ciphers: list[str], minimum: ssl.TLSVersion) -> None:
    # Versions before 1.2 sign with SHA-1, which OpenSSL allows at its lowest level alone.
    level = "@SECLEVEL=0" if minimum < ssl.TLSVersion.TLSv1_2 else ""
    if ciphers or level:
        context.set_ciphers(":".join(ciphers or ["DEFAULT"]) + (f":{level}" if level else ""))


def _set_curves(context: ssl.SSLContext, curves: list[str]) -> None:
    if len(curves) > 1:
        raise TlsConfigError(
            "curve_preferences: Python's ssl can be given one curve; name one, or leave it to OpenSSL"
        )
    try:
        context.set_ecdh_curve(curves[0])
    except (ValueError, ssl.SSLError) as error:
        raise TlsConfigError("curve_preferences: Python's ssl can't be given this curve") from error


def _looked_up(key: str, name: str, known: Mapping[str, Any]) -> Any:
    try:
        return known[name]
    except KeyError:
        there = ", ".join(filter(None, known))
        raise TlsConfigError(f"{key}: {name!r} is unknown; there are {there}") from None


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A name for it, as ssl takes certificates and keys by name alone. It is nowhere but in memory."""
    descriptor = os.memfd_create("smtp-horizon-tls")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
