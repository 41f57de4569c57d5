from hypothesis import given
from hypothesis import strategies as st

from monitor.side import Side
from monitor.tls.hellos import parse_client_hello, parse_server_hello
from tests.monitor.tls.real_tls import Transcript


def hello_bodies(transcript: Transcript) -> tuple[bytes, bytes]:
    """Of real hellos, each the first message of its side."""
    firsts = [next(data for side, data in transcript if side is wanted) for wanted in Side]
    client, server = (data[9 : 9 + int.from_bytes(data[6:9], "big")] for data in firsts)
    return client, server


def test_no_prefix_of_a_hello_is_taken_for_a_whole_one(mail_session: Transcript) -> None:
    client, server = hello_bodies(mail_session)
    whole = parse_client_hello(client)
    assert whole is not None
    assert whole.extensions
    for at in range(len(client)):
        prefix = parse_client_hello(client[:at])
        # One prefix is a hello too: that which ends where the extensions would begin.
        assert prefix is None or not prefix.extensions
    assert parse_server_hello(server) is not None


@given(st.binary(max_size=300))
def test_random_bytes_never_raise(body: bytes) -> None:
    parse_client_hello(body)
    parse_server_hello(body)


@given(at=st.integers(0, 600), value=st.integers(0, 255))
def test_a_changed_byte_never_raises(mail_session: Transcript, at: int, value: int) -> None:
    for body, parse in zip(hello_bodies(mail_session), (parse_client_hello, parse_server_hello), strict=True):
        changed = bytearray(body)
        changed[at % len(body)] = value
        parse(bytes(changed))


def client_hello(extensions: bytes) -> bytes:
    return (
        b"\x03\x03"
        + bytes(32)
        + b"\0"
        + b"\0\2\x13\x01"
        + b"\1\0"
        + len(extensions).to_bytes(2, "big")
        + extensions
    )


def test_an_extension_which_contradicts_itself_is_as_if_empty() -> None:
    parsed = parse_client_hello(
        client_hello(bytes.fromhex("0000 0004 00ff 00000010 0003 0001 05000d 0002 0009"))
    )
    assert parsed is not None
    assert parsed.extensions == (0, 16, 13)
    assert (parsed.server_name, parsed.alpn, parsed.signature_algorithms) == (None, None, ())


def test_a_name_need_not_be_text() -> None:
    parsed = parse_client_hello(client_hello(bytes.fromhex("0000 0007 0005 00 0002 ff0a")))
    assert parsed is not None
    assert parsed.server_name == b"\xff\x0a"
