"""Transcripts of record lengths: who sent an encrypted record, and how long it was."""

import pytest

from monitor.side import Side
from monitor.tls.establishment import Establishment
from monitor.tls.hellos import ServerHello
from monitor.tls.records import ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE

C, S = Side.CLIENT, Side.SERVER
AES_128, AES_256, CCM_8 = 0x1301, 0x1302, 0x1305
FINISHED = {AES_128: 53, AES_256: 69, CCM_8: 45}
ENCRYPTED_ALERT = {AES_128: 19, AES_256: 19, CCM_8: 11}


def after(
    *records: tuple[Side, int], cipher: int | None = AES_128, version: int = 0x0304, early_data: bool = False
) -> Establishment:
    judge = Establishment()
    if cipher is not None:
        judge.server_hello(ServerHello(version, cipher, False), early_data)
    for side, length in records:
        judge.record(side, APPLICATION_DATA, length)
    return judge


@pytest.mark.parametrize("cipher", FINISHED)
def test_finished_then_data_then_an_answer_is_established(cipher: int) -> None:
    flight = ((S, 900), (C, FINISHED[cipher]))
    assert not after(*flight, (S, 255), (S, 255), cipher=cipher).established
    assert not after(*flight, (C, 40), cipher=cipher).established
    assert after(*flight, (C, 40), (S, 40), cipher=cipher).established


@pytest.mark.parametrize("cipher", FINISHED)
def test_alerts_prove_nothing(cipher: int) -> None:
    alert = ENCRYPTED_ALERT[cipher]
    judge = after((S, 900), (C, FINISHED[cipher]), (C, 40), (S, alert), (C, alert), (S, alert), cipher=cipher)
    assert not judge.established
    assert judge.encrypted_alert_seen


def test_a_client_certificate_is_no_data() -> None:
    own_records = ((S, 900), (C, 800), (C, 95), (C, 53))
    assert not after(*own_records, (S, 255)).established
    assert after(*own_records, (S, 255), (C, 40), (S, 40)).established
    one_record = ((S, 900), (C, 930), (S, 255))
    assert not after(*one_record, (C, 40)).established
    assert after(*one_record, (C, 40), (S, 40)).established


def test_early_data_comes_before_the_servers_flight_and_asks_for_more_proof() -> None:
    early = ((C, 53), (C, 40), (S, 60), (S, 53), (C, 21), (C, 53), (S, 255))
    assert after(*early[:3]).established  # it would be, had no early data been offered
    assert not after(*early, early_data=True).established
    assert after(*early, (C, 40), (S, 40), early_data=True).established


def test_without_a_server_hello_two_exchanges_are_asked_for() -> None:
    assert not after((S, 900), (C, 53), (S, 255), (C, 40), cipher=None).established
    assert after((S, 900), (C, 53), (S, 255), (C, 40), (S, 40), cipher=None).established
    assert not after((C, 19), (S, 11), (C, 19), (S, 11), cipher=None).established


def test_an_unknown_version_is_read_as_carefully() -> None:
    assert not after((C, 53), (C, 40), (S, 40), version=0x0305).established
    assert after((C, 53), (S, 40), (C, 40), (S, 40), version=0x0305).established


@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0302, 0x0303])
def test_up_to_tls_1_2_the_record_type_says_it(version: int) -> None:
    assert not after((C, 19), (C, 40), cipher=0xC02F, version=version).established
    assert after((S, 11), (C, 19), cipher=0xC02F, version=version).established


def test_other_records_count_for_nothing() -> None:
    judge = after((C, 53))
    for content_type in (CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE):
        for side in (C, S) * 4:
            judge.record(side, content_type, 40)
    assert not judge.established
