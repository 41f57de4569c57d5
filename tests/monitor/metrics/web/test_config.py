"""What a web configuration may say, and with which line it is refused."""

import ssl
import subprocess
from pathlib import Path
from typing import Final

import pytest

from monitor.metrics.web.config import WebConfigError, load
from monitor.metrics.web.settings import RateLimit, WebSettings
from tests.monitor.metrics.web.authority import Authority
from tests.monitor.metrics.web.conftest import CERTIFIED

ALICE = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze"  # exporter-toolkit's own example


def _load(authority: Authority, text: str) -> WebSettings:
    file = authority.folder / "web.yml"
    file.write_text(text)
    return load(str(file))


def test_an_empty_file_asks_for_nothing(authority: Authority) -> None:
    for text in ("", "# nothing\n", "tls_server_config:\nbasic_auth_users:\n", "http_server_config: {}\n"):
        assert _load(authority, text) == WebSettings()


def test_the_example_of_exporter_toolkit_is_understood(authority: Authority) -> None:
    settings = _load(
        authority,
        f"{CERTIFIED}basic_auth_users:\n  alice: {ALICE}\nrate_limit:\n  interval: '1s'\n  burst: 20\n",
    )
    assert settings.tls is not None
    assert settings.users == {"alice": ALICE}
    assert settings.rate_limit == RateLimit(1.0, 20)


def test_all_ciphers_that_go_has_are_known(authority: Authority) -> None:
    names = [
        f"TLS_ECDHE_{key}_WITH_{cipher}"
        for key in ("ECDSA", "RSA")
        for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256",
                       "AES_128_CBC_SHA", "AES_256_CBC_SHA")
    ] + ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]  # fmt: skip
    tls = _load(authority, f"{CERTIFIED}  cipher_suites: [{', '.join(names)}]\n").tls
    assert tls is not None
    assert len([cipher for cipher in tls.get_ciphers() if cipher["protocol"] != "TLSv1.3"]) == 10


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", None), ("1s", 1.0), ("500ms", 0.5), ("1m30s", 90.0), ("1.5h", 5400.0), ("250000000", 0.25)],
)
def test_an_interval_is_a_duration_as_go_reads_it(
    authority: Authority, text: str, seconds: float | None
) -> None:
    limit = _load(authority, f"rate_limit: {{interval: {text}, burst: 1}}\n").rate_limit
    assert (limit and limit.interval_seconds) == seconds


def test_names_and_numbers_of_users_are_what_is_written(authority: Authority) -> None:
    settings = _load(authority, f"basic_auth_users:\n  0123: {ALICE}\n  1e3: {ALICE}\n")
    assert set(settings.users) == {"0123", "1e3"}


def test_certificate_and_key_may_stand_in_the_file(authority: Authority) -> None:
    def indented(name: str) -> str:
        return "".join(f"    {line}\n" for line in (authority.folder / name).read_text().splitlines())

    text = f"tls_server_config:\n  cert: |\n{indented('server.pem')}  key: |\n{indented('server.key')}"
    assert _load(authority, text).tls is not None


_LAUGHTER: Final = "a0: &a0 {x: y}\n" + "".join(
    f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}\n" for n in range(1, 60)
)
"""Two to the power of sixty, if all of it were made."""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tls_server_confg: {}", "unknown field `tls_server_confg`"),
        ("tls_server_config: {cert_fil: x}", "unknown field `cert_fil` - at `$.tls_server_config`"),
        ("just words", "Expected `object`"),
        ("a: [", "line 1: "),
        ("a: 1\na: 2", "a is there twice"),
        ("a: \x07", "no YAML"),
        ("a: !!int x", "line 1: could not determine a constructor for the tag"),
        ("a: !!timestamp x", "line 1: could not determine a constructor for the tag"),
        ("? [a]\n: 1\n? [a]\n: 2", "line 1: found unhashable key"),
        ("a: &a {b: *a}", "unknown field `a`"),
        ("[" * 5_000, "nested too deeply"),
        (_LAUGHTER, "unknown field `a0`"),
        ("tls_server_config: {cert_file: server.pem}", "cert and key are needed"),
        ("tls_server_config: {key_file: server.key}", "cert and key are needed"),
        ("tls_server_config: {client_auth_type: NoClientCert}", "cert and key are needed"),
        ("tls_server_config: {cert_file: nowhere, key_file: server.key}", "No such file"),
        ("tls_server_config: {cert_file: server.key, key_file: server.key}", "can't be used"),
        ("tls_server_config: {cert_file: server.pem, key_file: authority.key}", "key values mismatch"),
        (CERTIFIED + "  min_version: TLS111", "'TLS111' is unknown; there are TLS10, TLS11, TLS12, TLS13"),
        (CERTIFIED + "  min_version: TLS13\n  max_version: TLS12", "no version lies between"),
        (CERTIFIED + "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA2048]", "is unknown"),
        (CERTIFIED + "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n  max_version: TLS12", "no version lies"),
        (CERTIFIED + "  curve_preferences: [CurveP257]", "is unknown"),
        (CERTIFIED + "  curve_preferences: [CurveP256, CurveP384]", "can be given one curve"),
        (CERTIFIED + "  client_auth_type: Please", "is unknown"),
        (CERTIFIED + "  client_auth_type: RequireAnyClientCert", "verifies nothing"),
        (CERTIFIED + "  client_auth_type: RequestClientCert", "verifies nothing"),
        (CERTIFIED + "  client_ca_file: authority.pem", "nobody is asked for a certificate"),
        (CERTIFIED + "  client_allowed_sans: [a]", "nobody is asked for a certificate"),
        (
            CERTIFIED + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: server.key",
            "no certificate in PEM",
        ),
        ("basic_auth_users: {john: doe}", "basic_auth_users.john: is no bcrypt hash"),
        (f"basic_auth_users: {{'a:b': {ALICE}}}", "a colon ends the name"),
        ("http_server_config: {headers: {Content-Type: foo}}", "can't be set"),
        ("http_server_config: {headers: {X-Frame-Options: foo}}", "must be deny or sameorigin"),
        ('http_server_config: {headers: {X-XSS-Protection: "a\\r\\nb: c"}}', "no header may have"),
        ("rate_limit: {interval: soon}", "is no duration"),
        ("rate_limit: {burst: many}", "Expected `int`"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_the_file(authority: Authority, text: str, said: str) -> None:
    with pytest.raises(WebConfigError) as caught:
        _load(authority, text)
    message = str(caught.value)
    assert said in message
    assert str(authority.folder) in message
    assert "\n" not in message


def test_the_curve_x25519_is_used_or_refused_as_python_can(authority: Authority) -> None:
    text = CERTIFIED + "  curve_preferences: [X25519]"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve("X25519")
    except (ValueError, ssl.SSLError):
        with pytest.raises(WebConfigError, match="can't be given this curve"):
            _load(authority, text)
    else:
        assert _load(authority, text).tls is not None


def test_a_password_in_place_of_its_hash_is_not_repeated(authority: Authority) -> None:
    with pytest.raises(WebConfigError) as caught:
        _load(authority, "basic_auth_users: {john: opensesame}")
    assert "opensesame" not in str(caught.value)


def test_an_encrypted_key_is_refused_and_asks_nobody(authority: Authority) -> None:
    subprocess.run(
        ["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", "server.key", "-out", "locked.key"],
        cwd=authority.folder,
        check=True,
        capture_output=True,
    )
    with pytest.raises(WebConfigError, match="encrypted"):
        _load(authority, "tls_server_config: {cert_file: server.pem, key_file: locked.key}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WebConfigError, match=r"web\.yml: cannot be read: No such file"):
        load(str(tmp_path / "web.yml"))


def test_every_file_comes_through_the_reader_that_is_given(authority: Authority) -> None:
    asked: list[str] = []

    def read(path: Path) -> bytes:
        asked.append(path.name)
        return path.read_bytes()

    file = authority.folder / "web.yml"
    file.write_text(
        f"{CERTIFIED}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: authority.pem\n"
    )
    load(str(file), read)
    assert asked == ["web.yml", "server.pem", "server.key", "authority.pem"]
