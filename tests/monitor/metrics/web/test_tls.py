"""TLS, client certificates and headers, as the real curl and openssl find them."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.monitor.metrics.web.authority import Authority, make_authority
from tests.monitor.metrics.web.conftest import CERTIFIED, Served

Serve = Callable[[str], Served]

VERIFIED = CERTIFIED + "  client_ca_file: authority.pem\n  client_auth_type: "


@pytest.fixture(scope="session", autouse=True)
def certificates(authority: Authority) -> None:
    """friend and acquaintance are signed by the authority that the server knows, stranger is not."""
    authority.issue("friend", "DNS:friend.example,IP:2001:db8::1,email:f@example.test", "clientAuth")
    authority.issue("acquaintance", "DNS:acquaintance.example", "clientAuth")
    authority.issue("misused", "DNS:friend.example", "serverAuth")
    (authority.folder / "elsewhere").mkdir()
    stranger = make_authority(authority.folder / "elsewhere").issue("s", "DNS:friend.example", "clientAuth")
    stranger.certificate.rename(authority.folder / "stranger.pem")
    stranger.key.rename(authority.folder / "stranger.key")


def _as(name: str) -> tuple[str, ...]:
    return "--cert", f"{name}.pem", "--key", f"{name}.key"


def test_a_scrape_over_tls(serve: Serve) -> None:
    served = serve(CERTIFIED)
    assert served.server.url.startswith("https://")
    answer = served.curl()
    assert answer.status == 200
    assert "smtp_sessions_total" in answer.body
    assert served.curl("--http2").status == 200, "in HTTP/1.1, as ALPN has agreed"
    assert served.curl(path="/").status == 200


def _handshake(served: Served, *options: str) -> bool:
    host = urlsplit(served.server.url).netloc
    done = subprocess.run(
        ["openssl", "s_client", "-connect", host, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=20,
    )
    return done.returncode == 0 and b"Cipher is (NONE)" not in done.stdout


ANY_VERSION = ("-cipher", "DEFAULT@SECLEVEL=0")  # or openssl itself refuses versions before 1.2


def test_versions_before_tls_1_2_are_refused_unless_asked_for(serve: Serve) -> None:
    served = serve(CERTIFIED)
    assert not _handshake(served, "-tls1", *ANY_VERSION)
    assert not _handshake(served, "-tls1_1", *ANY_VERSION)
    assert _handshake(served, "-tls1_2")
    assert _handshake(served, "-tls1_3")
    served = serve(CERTIFIED + "  min_version: TLS11\n")
    assert not _handshake(served, "-tls1", *ANY_VERSION)
    assert _handshake(served, "-tls1_1", *ANY_VERSION)
    served = serve(CERTIFIED + "  min_version: TLS10\n  max_version: TLS12\n")
    assert _handshake(served, "-tls1", *ANY_VERSION)
    assert not _handshake(served, "-tls1_3")


def test_only_the_ciphers_and_the_curve_of_the_list_are_agreed_on(serve: Serve) -> None:
    served = serve(
        CERTIFIED
        + "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n  curve_preferences: [CurveP384]\n"
    )
    assert _handshake(served, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384")
    assert not _handshake(served, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")
    assert _handshake(served, "-tls1_3", "-groups", "P-384")
    assert not _handshake(served, "-tls1_3", "-groups", "P-256")


def test_a_list_of_tls_1_3_ciphers_leaves_nothing_for_older_versions(serve: Serve) -> None:
    served = serve(CERTIFIED + "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n")
    assert not _handshake(served, "-tls1_2")
    assert _handshake(served, "-tls1_3")


@pytest.mark.parametrize(
    ("preferred", "agreed"),
    [("true", "ECDHE-ECDSA-AES256-GCM-SHA384"), ("false", "ECDHE-ECDSA-AES128-GCM-SHA256")],
)
def test_who_chooses_the_cipher(serve: Serve, preferred: str, agreed: str) -> None:
    served = serve(
        f"{CERTIFIED}  prefer_server_cipher_suites: {preferred}\n  cipher_suites: "
        "[TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n"
    )
    offered = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    done = subprocess.run(
        [
            "openssl",
            "s_client",
            "-connect",
            urlsplit(served.server.url).netloc,
            "-tls1_2",
            "-cipher",
            offered,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert f"Cipher is {agreed}" in done.stdout


def test_plain_http_where_tls_is_spoken_ends_without_metrics(serve: Serve) -> None:
    served = serve(CERTIFIED)
    url = served.server.url.replace("https", "http")
    done = subprocess.run(
        ["curl", "--silent", "--max-time", "20", url], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stdout == ""


def test_who_sends_a_body_gets_the_whole_answer_all_the_same(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"x" * 20_000)
    served = serve(CERTIFIED)
    answer = served.curl("--header", "Expect:", "--data-binary", f"@{tmp_path / 'body'}")
    assert (answer.curl_status, answer.status, answer.body) == (0, 405, "Only GET and HEAD\n")


def test_no_client_needs_a_certificate_by_default(serve: Serve) -> None:
    for served in (serve(CERTIFIED), serve(CERTIFIED + "  client_auth_type: NoClientCert\n")):
        assert served.curl().status == 200
        assert served.curl(*_as("stranger")).status == 200


def test_a_certificate_that_is_given_must_be_good(serve: Serve) -> None:
    served = serve(VERIFIED + "VerifyClientCertIfGiven\n")
    assert served.curl().status == 200
    assert served.curl(*_as("friend")).status == 200
    assert served.curl(*_as("stranger")).status == 0
    assert served.curl(*_as("misused")).status == 0


def test_a_certificate_must_be_given_and_good(serve: Serve) -> None:
    served = serve(VERIFIED + "RequireAndVerifyClientCert\n")
    assert served.curl().status == 0
    assert served.curl(*_as("friend")).status == 200
    assert served.curl(*_as("acquaintance")).status == 200
    assert served.curl(*_as("stranger")).status == 0
    assert served.curl("--tls-max", "1.2", *_as("stranger")).status == 0


def test_without_a_file_of_authorities_those_of_the_system_decide(serve: Serve) -> None:
    served = serve(CERTIFIED + "  client_auth_type: RequireAndVerifyClientCert\n")
    assert served.curl(*_as("friend")).status == 0


@pytest.mark.parametrize("name", ["friend.example", "2001:DB8:0::1", "2001:db8::1", "f@example.test"])
def test_a_certificate_must_bear_an_allowed_name(serve: Serve, name: str) -> None:
    served = serve(f"{VERIFIED}RequireAndVerifyClientCert\n  client_allowed_sans: [nobody, '{name}']\n")
    # Go compares addresses as it writes them.
    assert served.curl(*_as("friend")).status == (0 if "DB8" in name else 200)
    assert served.curl(*_as("acquaintance")).status == 0


def test_with_allowed_names_nobody_comes_in_without_a_certificate(serve: Serve) -> None:
    served = serve(f"{VERIFIED}VerifyClientCertIfGiven\n  client_allowed_sans: [friend.example]\n")
    assert served.curl().status == 0
    assert served.curl(*_as("friend")).status == 200


def test_headers_are_in_every_answer(serve: Serve) -> None:
    served = serve(
        "http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n"
        "    Strict-Transport-Security: max-age=31536000\n    Content-Security-Policy: ''\n"
    )
    for path in ("/metrics", "/", "/nowhere"):
        headers = served.curl(path=path).headers
        assert headers["x-frame-options"] == "deny"
        assert headers["strict-transport-security"] == "max-age=31536000"
        assert "content-security-policy" not in headers


def test_a_new_certificate_and_new_authorities_are_for_new_connections(
    serve: Serve, authority: Authority
) -> None:
    served = serve(CERTIFIED)
    authority.issue("renewed", "IP:127.0.0.1", "serverAuth")
    served.reload(
        "tls_server_config:\n  cert_file: renewed.pem\n  key_file: renewed.key\n"
        "  client_ca_file: authority.pem\n  client_auth_type: RequireAndVerifyClientCert\n",
        is_in_force=lambda: served.curl().status == 0,
    )
    assert served.curl(*_as("friend")).status == 200
    done = subprocess.run(
        ["openssl", "s_client", "-connect", urlsplit(served.server.url).netloc],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    # Versions of openssl put other spaces about the sign.
    assert re.search("^subject=CN ?= ?renewed$", done.stdout, re.MULTILINE)
