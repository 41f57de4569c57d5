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
