"""Which command a reply answers, where transcripts would have to be long to show it."""

from monitor.smtp.events import CommandAnswered
from monitor.smtp.grammar import Command
from monitor.smtp.matching import ReplyQueue
from monitor.smtp.replies import Reply


def test_out_of_step_a_220_is_no_answer_to_a_starttls_that_was_overwritten() -> None:
    queue = ReplyQueue(from_the_start=True)
    masked, real = Command("STARTTLS", masked=True), Command("STARTTLS")
    queue.add(masked)
    queue.add(real)
    queue.lose_step()  # the 500 to the first may be what was lost
    reply = Reply(220)
    assert queue.answer(reply) is real
    answers = [event for event in queue.take_events() if isinstance(event, CommandAnswered)]
    assert [(answer.command, answer.reply, answer.in_doubt) for answer in answers] == [
        (masked, None, True),
        (real, reply, False),
    ]


def test_out_of_step_a_common_code_answers_nothing() -> None:
    queue = ReplyQueue(from_the_start=True)
    queue.add(Command("NOOP"))
    queue.lose_step()
    assert queue.answer(Reply(250)) is None
    assert not queue.take_events()


def test_behind_tls_a_reply_to_ehlo_says_nothing_of_pipelining() -> None:
    """A client that may pipeline is never taken for one that waited: after a loss that would tie its
    commands to the replies of others."""
    for greeting in ("EHLO", "HELO"):
        queue = ReplyQueue(from_the_start=True, tapped=True)
        assert queue.pipelining is None
        queue.add(Command(greeting))
        assert queue.answer(Reply(250)) is not None
        assert queue.pipelining is None
        queue.lose_step()
        queue.resume()
        assert not queue.in_step


def test_behind_tls_nobody_knows_that_the_client_has_waited() -> None:
    for tapped in (False, True):
        queue = ReplyQueue(from_the_start=True, tapped=tapped)
        queue.lose_step()
        queue.add(Command("AUTH"))
        assert queue.step_proven_by(certain=True) is not tapped
