"""The table of phases: whole, and as drawn in the documents."""

from pathlib import Path

import pytest

from monitor.smtp.transitions import AWAITS_REPLY, NOT_SMTP, TRANSITIONS, Input, Phase
from tests.monitor.smtp.phase_diagram import diagram

DOCUMENT = Path(__file__).parents[3] / "docs" / "smtp-phases.md"


def test_every_phase_knows_every_input() -> None:
    assert set(TRANSITIONS) == set(Phase)
    for reactions in TRANSITIONS.values():
        assert set(reactions) == set(Input)


def test_every_phase_can_be_reached_and_all_but_one_be_left() -> None:
    for phase in Phase:
        if phase is not Phase.COMMANDS:
            assert any(phase in TRANSITIONS[other].values() for other in Phase if other is not phase), phase
        left = set(TRANSITIONS[phase].values()) != {phase}
        assert left is (phase is not Phase.TURNED)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in NOT_SMTP])
def test_a_loss_is_never_taken_for_an_answer(phase: Phase) -> None:
    assert TRANSITIONS[phase][Input.CLIENT_LOSS] is Phase.LOST
    assert TRANSITIONS[phase][Input.REPLY_LOSS] in (phase, Phase.LOST)
    if phase in AWAITS_REPLY:
        assert TRANSITIONS[phase][Input.REPLY_LOSS] is Phase.LOST


def test_nothing_but_a_positive_reply_leads_to_tls() -> None:
    ways = {
        (phase, happened)
        for phase, reactions in TRANSITIONS.items()
        for happened, then in reactions.items()
        if then is Phase.TLS and phase is not Phase.TLS
    }
    assert ways == {(Phase.STARTTLS_SENT, Input.POSITIVE), (Phase.LOST, Input.POSITIVE)}


def test_the_diagram_shows_the_table() -> None:
    """To mend it: python -m tests.monitor.smtp.phase_diagram > docs/smtp-phases.md"""
    assert DOCUMENT.read_text() == diagram()
