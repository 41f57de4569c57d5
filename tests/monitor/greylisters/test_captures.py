"""Every capture: what the models find is what the drivers' truth says, and nothing that is not declared."""

from typing import Final

import pytest

from monitor.greylisters import MODELS, TlsEnds
from tests.capture_truth import capture_names
from tests.captures_reach import ORACLES, sessions_with_commands
from tests.monitor.greylisters.sight import in_words, records_under
from tests.segments import segments_of

NAMES: Final = [*capture_names(), "mid"]

UNTOLD: Final = {
    # The truth has a reply's code, and not how many lines it had: HELP is answered with several.
    ("misc_commands", 23352, "greylite"),
    ("misc_commands", 46772, "greylite"),
    # What is no SMTP stands in the truth's notes only: a TLS record, and bytes of zero.
    ("misc_commands", 33820, "greylite"),
    ("misc_commands", 33820, "spamd"),
    ("misc_commands", 33836, "greylite"),
    # swaks printed pipelined commands behind each other, and the truth took the replies for DATA's.
    ("swaks_mix", 36947, "greylite"),
    ("swaks_mix", 36947, "policy_service"),
    ("swaks_mix", 36947, "recordio"),
    ("swaks_mix", 36947, "spamd"),
}
"""Capture, the client's port, greylister: where the truth does not tell what the wire does."""


@pytest.mark.parametrize("tls_ends", list(TlsEnds))
@pytest.mark.parametrize("name", NAMES)
def test_what_the_models_find_is_what_the_truth_says(name: str, tls_ends: TlsEnds) -> None:
    found = {
        (record.client.ip, record.client.port): record.greylisters
        for record in records_under(tls_ends, segments_of(name))
    }
    different = {}
    for session in sessions_with_commands(name):
        ip, port = session.get("behind_middlebox_as") or session["client"]
        for greylister, oracle in ORACLES.items():
            seen, true = in_words(found[ip, port][greylister]), oracle(session, tls_ends.value)
            if seen != true:
                different[name, port, greylister] = f"{seen}, not {true}"
    assert set(different) == {key for key in UNTOLD if key[0] == name}, different


def test_every_model_is_held_against_the_truth() -> None:
    assert list(ORACLES) == [model.name for model in MODELS]


@pytest.mark.parametrize("tls_ends", list(TlsEnds))
@pytest.mark.parametrize("name", NAMES)
def test_no_model_finds_what_it_did_not_declare(name: str, tls_ends: TlsEnds) -> None:
    records = records_under(tls_ends, segments_of(name))
    assert records
    for record in records:
        assert list(record.greylisters) == [model.name for model in MODELS]
        for model in MODELS:
            assert record.greylisters[model.name] in model.results
