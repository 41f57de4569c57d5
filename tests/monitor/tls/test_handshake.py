"""Real handshakes, made by Python's OpenSSL."""

import ssl
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.side import Side
from monitor.tls.handshake import TlsFacts, TlsReader
from tests.monitor.tls.real_tls import Transcript, Wire, client_context, cut, read, server_context, talk

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
pieces = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def facts_of(reader: TlsReader) -> TlsFacts:
    assert reader.facts is not None
    return reader.facts


@pytest.mark.parametrize("name", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
def test_version_and_cipher_are_those_that_openssl_reports(name: str, certificate: Path) -> None:
    version = ssl.TLSVersion[name]
    wire = Wire(client_context(None, version), server_context(certificate, version))
    reader = read(talk(wire))
    cipher = wire.ends[0].cipher()
    assert cipher is not None
    assert (facts_of(reader).version, facts_of(reader).cipher) == (wire.ends[0].version(), cipher[0])
    assert (reader.established, reader.in_doubt, reader.failed_visibly) == (True, False, False)


@pytest.mark.parametrize("version", [V12, V13])
def test_the_name_and_the_protocol_asked_for_are_told(version: ssl.TLSVersion, certificate: Path) -> None:
    client = client_context(certificate, version)
    client.set_alpn_protocols(["smtp", "http/1.1"])
    reader = read(talk(Wire(client, server_context(certificate, version), "mx.example.test")))
    assert (facts_of(reader).sni, facts_of(reader).alpn) == ("mx.example.test", "smtp")
    fingerprint = facts_of(reader).ja4
    assert fingerprint is not None
    assert fingerprint.startswith({V12: "t12d", V13: "t13d"}[version])
    assert fingerprint[8:10] == "sp"


def test_encryption_is_established_with_the_servers_first_answer_and_not_before(certificate: Path) -> None:
    for version in (V12, V13):
        wire = Wire(client_context(None, version), server_context(certificate, version))
        wire.shake_hands()
        wire.say(Side.CLIENT, b"EHLO client.example\r\n")
        assert not read(wire.transcript).established
        wire.say(Side.SERVER, b"250 mx.example.test\r\n")
        assert read(wire.transcript).established


@pytest.mark.parametrize("version", [V12, V13])
def test_a_client_that_closes_after_the_handshake_established_nothing(
    version: ssl.TLSVersion, certificate: Path
) -> None:
    wire = Wire(client_context(None, version), server_context(certificate, version))
    wire.shake_hands()
    wire.close(Side.CLIENT)
    wire.close(Side.SERVER)
    reader = read(wire.transcript)
    assert (reader.established, reader.in_doubt, reader.failed_visibly) == (False, False, True)


@pytest.mark.parametrize("version", [V12, V13])
def test_a_client_that_rejects_the_certificate_fails_the_handshake(
    version: ssl.TLSVersion, certificate: Path
) -> None:
    client = client_context(certificate, version)
    wire = Wire(client, server_context(certificate, version), "other.example.test")
    wire.shake_hands()
    assert wire.failures
    reader = read(wire.transcript)
    assert (reader.established, reader.in_doubt, reader.failed_visibly) == (False, False, True)


@pytest.mark.parametrize("version", [V12, V13])
def test_a_client_certificate_does_not_look_like_data(version: ssl.TLSVersion, certificate: Path) -> None:
    client, server = client_context(None, version), server_context(certificate, version)
    client.load_cert_chain(certificate)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certificate)
    wire = Wire(client, server)
    wire.shake_hands()
    assert not wire.failures
    assert not read(wire.transcript).established
    wire.say(Side.CLIENT, b"EHLO client.example\r\n")
    assert not read(wire.transcript).established
    wire.say(Side.SERVER, b"250 mx.example.test\r\n")
    assert read(wire.transcript).established


def test_a_server_that_misses_the_clients_certificate_fails_the_session(certificate: Path) -> None:
    server = server_context(certificate, V13)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certificate)
    wire = Wire(client_context(None, V13), server)
    wire.shake_hands()  # the client is content, and only then hears the server's alert
    assert wire.failures
    reader = read(wire.transcript)
    assert (reader.established, reader.in_doubt, reader.failed_visibly) == (False, False, True)


def test_no_common_version_is_a_failure_in_clear(certificate: Path) -> None:
    wire = Wire(client_context(None, V12), server_context(certificate, V13))
    wire.shake_hands()
    reader = read(wire.transcript)
    assert (reader.established, reader.in_doubt, reader.failed_visibly) == (False, False, True)
    assert facts_of(reader).version is None
    assert facts_of(reader).ja4 is not None


def test_no_common_cipher_is_a_failure_in_clear(certificate: Path) -> None:
    client, server = client_context(None, V12), server_context(certificate, V12)
    client.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    server.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    wire = Wire(client, server)
    wire.shake_hands()
    assert read(wire.transcript).failed_visibly


def test_a_hello_retry_request_changes_nothing_but_the_length(certificate: Path) -> None:
    server = server_context(certificate, V13)
    server.set_ecdh_curve("secp384r1")  # the client sends a share of X25519 first
    server.num_tickets = 0  # so that nothing but the client's Finished tells where its flight ends
    wire = Wire(client_context(certificate, V13), server, "mx.example.test")
    wire.shake_hands()
    wire.say(Side.CLIENT, b"EHLO client.example\r\n")
    assert not read(wire.transcript).established
    wire.say(Side.SERVER, b"250 mx.example.test\r\n")
    transcript = wire.transcript
    retry = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891")
    assert any(retry in data for side, data in transcript if side is Side.SERVER)
    for same in (transcript, cut(transcript, 1)):
        reader = read(same)
        assert reader.established
        assert (facts_of(reader).version, facts_of(reader).sni) == ("TLSv1.3", "mx.example.test")


@pytest.mark.parametrize("version", [V12, V13])
def test_a_resumed_session_is_established_like_any_other(version: ssl.TLSVersion, certificate: Path) -> None:
    client, server = client_context(None, version), server_context(certificate, version)
    first = Wire(client, server)
    talk(first)
    again = Wire(client, server, session=first.ends[0].session)
    transcript = talk(again)
    assert again.ends[0].session_reused
    assert read(transcript).established


@pytest.mark.parametrize("version", [V12, V13])
def test_clear_text_after_the_session_is_given_back_from_its_first_byte(
    version: ssl.TLSVersion, certificate: Path
) -> None:
    wire = Wire(client_context(None, version), server_context(certificate, version))
    talk(wire)
    wire.close(Side.CLIENT)
    after = b"MAIL FROM:<a@client.example>\r\n"
    last_side, last = wire.transcript.pop()
    assert last_side is Side.CLIENT
    for at in range(len(last) + len(after) + 1):
        reader = read(wire.transcript)
        given_back = reader.receive(Side.CLIENT, (last + after)[:at])
        given_back += reader.receive(Side.CLIENT, (last + after)[at:])
        assert given_back == after
        assert reader.receive(Side.CLIENT, b"\x16\x03\x01\x00\x05more") == b"\x16\x03\x01\x00\x05more"
        assert reader.receive(Side.SERVER, b"") == b""
        assert reader.established


def test_text_instead_of_a_hello_is_clear_text(certificate: Path) -> None:
    reader = TlsReader()
    assert reader.receive(Side.CLIENT, b"QUIT\r\n") == b"QUIT\r\n"
    assert reader.receive(Side.SERVER, b"221 Bye\r\n") == b"221 Bye\r\n"
    assert (reader.established, reader.in_doubt, reader.facts) == (False, False, None)


def test_single_bytes_give_what_the_whole_gives(mail_session: Transcript) -> None:
    whole, bytewise = read(mail_session), read(cut(mail_session, 1))
    assert whole.established
    assert bytewise.established
    assert whole.facts == bytewise.facts


@pieces
@given(sizes=st.lists(st.integers(1, 600), min_size=1, max_size=20))
def test_any_split_gives_what_the_whole_gives(mail_session: Transcript, sizes: list[int]) -> None:
    reader = TlsReader()
    for side, data in mail_session:
        at = turn = 0
        while at < len(data):
            size = sizes[turn % len(sizes)]
            reader.receive(side, data[at : at + size])
            at, turn = at + size, turn + 1
    assert reader.established
    assert reader.facts == read(mail_session).facts


def degraded(transcript: Transcript, missing: set[int], size: int, told: bool) -> TlsReader:
    """Reads it in pieces of that size, of which some were not captured."""
    reader = TlsReader()
    for number, (side, data) in enumerate(cut(transcript, size)):
        if number in missing:
            reader.lost(side, len(data) if told else 0)
        else:
            assert reader.receive(side, data) == b""
    return reader


@pieces
@given(
    missing=st.sets(st.integers(0, 40), min_size=1, max_size=12), size=st.integers(5, 700), told=st.booleans()
)
def test_a_loss_is_a_success_or_a_doubt_and_never_a_failure(
    mail_session: Transcript, missing: set[int], size: int, told: bool
) -> None:
    reader = degraded(mail_session, missing, size, told)
    assert reader.established or reader.in_doubt or min(missing) >= len(cut(mail_session, size))


@pieces
@given(missing=st.sets(st.integers(0, 40), max_size=12), size=st.integers(5, 700), told=st.booleans())
def test_a_loss_never_invents_a_success(certificate: Path, missing: set[int], size: int, told: bool) -> None:
    for version in (V12, V13):
        rejecting = Wire(
            client_context(certificate, version), server_context(certificate, version), "other.test"
        )
        rejecting.shake_hands()
        assert not degraded(rejecting.transcript, missing, size, told).established
        closing = Wire(client_context(None, version), server_context(certificate, version))
        closing.shake_hands()
        closing.close(Side.CLIENT)
        assert not degraded(closing.transcript, missing, size, told).established


def test_a_loss_inside_a_body_that_says_nothing_does_no_harm(certificate: Path) -> None:
    wire = Wire(client_context(None, V12), server_context(certificate, V12))
    wire.shake_hands()
    wire.say(Side.CLIENT, b"EHLO client.example\r\n")
    *before, (side, data) = wire.transcript
    reader = read(before)
    reader.receive(side, data[:10])
    reader.lost(side, len(data) - 12)
    reader.receive(side, data[-2:])
    assert not reader.in_doubt
    assert reader.receive(side, b"NOOP\r\n") == b"NOOP\r\n"


def test_after_a_loss_nothing_is_claimed_to_be_clear_text(mail_session: Transcript) -> None:
    reader = read(mail_session)
    reader.lost(Side.CLIENT, 100)
    assert reader.receive(Side.CLIENT, b"MAIL FROM:<a@client.example>\r\n") == b""
    assert reader.established


def test_a_session_joined_midway_is_established_after_two_exchanges(certificate: Path) -> None:
    for version in (V12, V13):
        wire = Wire(client_context(None, version), server_context(certificate, version))
        wire.shake_hands()
        before = len(wire.transcript)
        talk(wire)
        reader = TlsReader()
        for side in Side:
            reader.lost(side, 0)
        assert reader.in_doubt
        read(wire.transcript[before:-1], reader)
        assert not reader.established
        assert reader.in_doubt
        read(wire.transcript[-1:], reader)
        assert (reader.established, reader.in_doubt, reader.facts) == (True, False, None)


def test_a_lost_server_hello_leaves_what_the_client_said(certificate: Path) -> None:
    wire = Wire(client_context(certificate, V13), server_context(certificate, V13), "mx.example.test")
    talk(wire)
    reader = TlsReader()
    (_, hello), (_, answer) = wire.transcript[:2]
    reader.receive(Side.CLIENT, hello)
    reader.receive(Side.SERVER, answer[:20])
    reader.lost(Side.SERVER, 30)
    assert reader.in_doubt
    reader.receive(Side.SERVER, answer[50:])
    read(wire.transcript[2:], reader)
    assert reader.established
    assert (facts_of(reader).version, facts_of(reader).sni) == (None, "mx.example.test")


def test_a_hello_is_found_after_one_that_was_cut_off(certificate: Path) -> None:
    wire = Wire(client_context(None, V12), server_context(certificate, V12))
    (_, hello), (side, answer), *_ = talk(wire)
    reader = read([(Side.CLIENT, hello), (side, answer[:30])])
    reader.lost(side, 0)
    read([(side, answer)], reader)
    assert facts_of(reader).version == "TLSv1.2"


SSLV2_HELLO = bytes.fromhex("802e 01 0301 0015 0000 0010") + bytes(21) + bytes(16)


def test_a_hello_in_the_sslv2_format_may_begin_a_tls_session(certificate: Path) -> None:
    wire = Wire(client_context(None, V12), server_context(certificate, V12))
    talk(wire)
    for size in (1, 3, 2000):
        reader = read(cut([(Side.CLIENT, SSLV2_HELLO), *wire.transcript[1:]], size))
        assert reader.established
        assert (facts_of(reader).version, facts_of(reader).ja4) == ("TLSv1.2", None)


def test_sslv2_is_named_and_otherwise_left_in_doubt() -> None:
    reader = TlsReader()
    read(
        cut([(Side.CLIENT, SSLV2_HELLO), (Side.SERVER, bytes.fromhex("800b04000100020000000000 10"))], 2),
        reader,
    )
    assert facts_of(reader).version == "SSLv2"
    assert reader.receive(Side.CLIENT, b"\x00\x10\x05encrypted") == b""
    assert (reader.established, reader.in_doubt) == (False, True)


def test_text_may_answer_a_hello_in_the_sslv2_format() -> None:
    reader = read([(Side.CLIENT, SSLV2_HELLO)])
    assert reader.receive(Side.SERVER, b"500 What?\r\n") == b"500 What?\r\n"


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(Side),
            st.one_of(st.binary(max_size=80), st.integers(0, 50)),
            st.sampled_from([b"", b"\x16\x03\x01", b"\x17\x03\x03\x00", b"\x15\x03\x03\x00\x02", b"\x80"]),
        ),
        max_size=30,
    )
)
def test_random_bytes_never_raise_and_never_contradict_themselves(
    inputs: list[tuple[Side, bytes | int, bytes]],
) -> None:
    reader = TlsReader()
    for side, data, prefix in inputs:
        if isinstance(data, int):
            reader.lost(side, data)
        else:
            # What is given back was sent: now, or as the first bytes of what might have been a header.
            assert len(reader.receive(side, prefix + data)) <= len(prefix + data) + 4
    assert not (reader.established and (reader.in_doubt or reader.failed_visibly))
