"""Draws docs/smtp-phases.md from the table of transitions."""

from monitor.smtp.transitions import AWAITS_REPLY, NOT_SMTP, TRANSITIONS, Input, Phase

_HEAD = """# Phases of the client's side

What the client's next bytes are, and what leads from one to another. Drawn from the table in
`monitor/smtp/transitions.py`; a test holds the two together.

In phases with a dashed border the client's bytes are held back, unread, until the reply says what they are.
What a phase does not name leaves it as it is. What leads from many phases to the same one is told below
instead of drawn.

```mermaid
stateDiagram-v2
    classDef waits stroke-dasharray: 5 5
    [*] --> COMMANDS
"""
_EVERYWHERE = (Input.CLIENT_LOSS, Input.REPLY_LOSS, Input.OVERFLOW, Input.TURN_ACCEPTED)


def diagram() -> str:
    """The document's text."""
    lines = [_HEAD.rstrip("\n")]
    for phase in Phase:
        ways: dict[Phase, list[str]] = {}
        for happened in Input:
            then = TRANSITIONS[phase][happened]
            if then is not phase and happened not in _EVERYWHERE:
                ways.setdefault(then, []).append(happened.name)
        lines += [f"    {phase.name} --> {then.name}: {', '.join(names)}" for then, names in ways.items()]
    lines += [f"    class {phase.name} waits" for phase in Phase if phase in AWAITS_REPLY - NOT_SMTP]
    lines += ["```", "", "| on | from | to |", "| --- | --- | --- |"]
    for happened in _EVERYWHERE:
        leaving = [phase for phase in Phase if TRANSITIONS[phase][happened] is not phase]
        targets = sorted({TRANSITIONS[phase][happened].name for phase in leaving})
        lines.append(
            f"| {happened.name} | {', '.join(phase.name for phase in leaving)} | {', '.join(targets)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(diagram(), end="")
