"""Handshakes between real mail servers and clients (data/README.md): GnuTLS and Go as well as OpenSSL."""

import json
from pathlib import Path
from typing import Any

import pytest

from monitor.side import Side
from tests.monitor.tls.real_tls import Transcript, cut, read

HANDSHAKES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "handshakes.json").read_text()
)


def transcript(handshake: dict[str, Any]) -> Transcript:
    sides = {"C": Side.CLIENT, "S": Side.SERVER}
    return [(sides[letter], bytes.fromhex(data)) for letter, data in handshake["segments"]]


@pytest.mark.parametrize("handshake", HANDSHAKES, ids=lambda each: f"{each['capture']}-{each['client'][1]}")
@pytest.mark.parametrize("size", [1, 7, 536, 65536])
def test_it_ended_as_its_client_says(handshake: dict[str, Any], size: int) -> None:
    reader = read(cut(transcript(handshake), size))
    assert reader.established == (handshake["handshake"] == "ok")
    assert reader.failed_visibly == handshake["handshake"].startswith("failed")
    assert not reader.in_doubt
    assert reader.facts is not None
    truth = handshake["tls"]
    if truth:
        assert (reader.facts.version, reader.facts.cipher, reader.facts.sni) == (
            truth["version"],
            truth["cipher"],
            truth["sni"],
        )


@pytest.mark.parametrize("handshake", HANDSHAKES, ids=lambda each: f"{each['capture']}-{each['client'][1]}")
def test_no_single_lost_segment_gives_a_wrong_answer(handshake: dict[str, Any]) -> None:
    segments = transcript(handshake)
    for missing in range(len(segments)):
        reader = read(segments[:missing])
        reader.lost(segments[missing][0], len(segments[missing][1]))
        read(segments[missing + 1 :], reader)
        if handshake["handshake"] == "ok":
            assert reader.established or reader.in_doubt
        else:
            assert not reader.established
