import subprocess

from monitor.tls.names import CIPHERS, cipher_name


def test_the_table_agrees_with_the_installed_openssl() -> None:
    listing = subprocess.run(
        ["openssl", "ciphers", "-V", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    compared = 0
    for line in listing.splitlines():
        number, _, name, *_ = line.split()
        high, low = (int(part, 16) for part in number.split(","))
        assert cipher_name(high << 8 | low) == name
        compared += 1
    assert compared > 50


def test_the_table_is_sorted_and_names_each_cipher_once() -> None:
    assert list(CIPHERS) == sorted(CIPHERS)
    assert len(set(CIPHERS.values())) > len(CIPHERS) - 5  # IANA lists a few FIPS suites twice


def test_old_suites_have_openssls_names() -> None:
    assert cipher_name(0x0005) == "RC4-SHA"
    assert cipher_name(0x000A) == "DES-CBC3-SHA"
    assert cipher_name(0x0003) == "EXP-RC4-MD5"
    assert cipher_name(0xC011) == "ECDHE-RSA-RC4-SHA"


def test_a_suite_that_openssl_never_had_has_its_iana_name_and_an_unknown_one_its_number() -> None:
    assert cipher_name(0x001E) == "TLS_KRB5_WITH_DES_CBC_SHA"
    assert cipher_name(0xABCD) == "0xABCD"
