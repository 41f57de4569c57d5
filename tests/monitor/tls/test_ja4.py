"""The published examples: FoxIO's JA4.md, "Details" and "Example"."""

import pytest

from monitor.tls.hellos import ALPN, SERVER_NAME, ClientHello
from monitor.tls.ja4 import ja4


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each, 16) for each in text.split(","))


def hello(**changes: object) -> ClientHello:
    """The hello of the document's example, in its original order."""
    fields: dict[str, object] = {
        "legacy_version": 0x0303,
        "ciphers": numbers("1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035"),
        "extensions": numbers(
            "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"
        ),
        "supported_versions": (0x0304, 0x0303),
        "signature_algorithms": numbers("0403,0804,0401,0503,0805,0501,0806,0601"),
        "server_name": b"example.test",
        "alpn": b"h2",
    }
    return ClientHello(**(fields | changes))  # type: ignore[arg-type]


def test_the_published_example() -> None:
    assert ja4(hello()) == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def test_without_signature_algorithms_the_list_ends_without_an_underscore() -> None:
    assert ja4(hello(signature_algorithms=())) == "t13d1516h2_8daaf6152771_6d807ffa2a79"


def test_grease_counts_nowhere() -> None:
    original = hello()
    greased = hello(
        ciphers=(0x0A0A, *original.ciphers),
        extensions=(0xFAFA, *original.extensions, 0x1A1A),
        supported_versions=(0xEAEA, *original.supported_versions),
        signature_algorithms=(*original.signature_algorithms, 0x2A2A),
    )
    assert ja4(greased) == ja4(original)
    assert ja4(hello(ciphers=(*original.ciphers, 0x0A1A))) != ja4(original)


def test_what_is_not_there_is_zeros() -> None:
    empty = hello(
        ciphers=(), extensions=(), supported_versions=(), signature_algorithms=(), server_name=None, alpn=None
    )
    assert ja4(empty) == "t12i000000_000000000000_000000000000"


def test_extensions_which_are_told_elsewhere_do_not_enter_the_hash() -> None:
    assert ja4(hello(extensions=(SERVER_NAME, ALPN))).endswith("d1502h2_8daaf6152771_000000000000")


def test_more_than_99_count_as_99() -> None:
    assert ja4(hello(ciphers=tuple(range(0x1000, 0x1100)))).startswith("t13d9916h2_")


@pytest.mark.parametrize(
    ("protocol", "characters"),
    [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"s", "ss"),
        (b"", "00"),
        (None, "00"),
        (b"\xab", "ab"),
        (b"\x20", "20"),
        (b"\xab\xcd", "ad"),
        (b"\x20\x61", "21"),
        (b"\x30\xab", "3b"),
        (b"\x61\x20", "60"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
    ],
)
def test_the_published_examples_of_alpn(protocol: bytes | None, characters: str) -> None:
    assert ja4(hello(alpn=protocol))[8:10] == characters


@pytest.mark.parametrize(
    ("version", "code"),
    [
        (0x0304, "13"),
        (0x0303, "12"),
        (0x0302, "11"),
        (0x0301, "10"),
        (0x0300, "s3"),
        (0x0002, "s2"),
        (0x7F1C, "00"),
    ],
)
def test_versions(version: int, code: str) -> None:
    assert ja4(hello(legacy_version=version, supported_versions=()))[1:3] == code
