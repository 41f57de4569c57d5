"""A client and a server that talk SMTP, invented from a seed: their bytes, and what really happened.

The client keeps to RFC 2920: it pipelines only where that was offered, and waits where it must. Each mailbox,
name and size occurs once in a session, so that an answer shows which command it was given to.
"""

import random
from collections import deque
from dataclasses import dataclass, field

from monitor.side import Side
from tests.monitor.smtp.transcript import SECRET, Close, Loss, Piece

BODY_LINES = (
    f"EHLO {SECRET}",
    f"MAIL FROM:<{SECRET}@x.example>",
    f"RCPT TO:<{SECRET}@x.example>",
    f"AUTH {SECRET} {SECRET}",
    "STARTTLS",
    "QUIT",
    "DATA",
    f"250 {SECRET}",
    "..",
    "",
    f".. {SECRET}",
    f"{SECRET} " * 20,
)
CHUNK_BYTES = (b"\r\n.\r\n", b"QUIT\r\n", b"\x00\xff", b"STARTTLS\r\n", SECRET.encode(), b"\n")


@dataclass(slots=True)
class Fact:
    """A command that was sent, in the words of `transcript.describe`, and the codes that answered it."""

    command: str
    codes: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Waiting:
    """A command that the server has not answered yet."""

    end: int
    """Where it ends in the client's stream; no reply comes before."""
    fact: Fact
    replies: list[tuple[int, int]]
    """Each one's code and number of lines."""


class Simulation:
    """One session. `steps` is to be fed to a dialogue; `facts` is what it should find."""

    def __init__(self, seed: int, *, ambiguous: bool = True) -> None:
        """`ambiguous`: with what nobody could tell apart after a loss. That is LMTP whose LHLO was lost, from
        SMTP; and commands and the end of a message, from the same bytes at the beginning of a segment of a
        chunk which was pipelined behind what was lost."""
        self.rng = random.Random(seed)
        self.steps: list[Piece | Loss | Close] = []
        self.facts: list[Fact] = []
        self._sent = self._said = self._heard = 0
        self._out = b""
        self._waiting: deque[_Waiting] = deque()
        self._counter = 0
        self._accepted = 0
        self._pipelining = False
        self._lmtp = False
        self._greetings = ("EHLO", "EHLO", "HELO", "LHLO") if ambiguous else ("EHLO", "EHLO", "HELO")
        self._chunk_bytes = CHUNK_BYTES if ambiguous else (b"\x00\xff", SECRET.encode(), b"\n")
        self._run()

    # ------------------------------------------------------------------ the session

    def _run(self) -> None:
        self._say(self._reply(220, self.rng.randint(1, 3), "mx"))
        self._greet()
        for _ in range(self.rng.randint(1, 8)):
            self.rng.choice((self._mail, self._mail, self._mail, self._small, self._auth, self._greet))()
        if self.rng.random() < 0.7:
            self._command("QUIT", "QUIT", [221])
        self._wait()
        self.steps.append(Close(in_doubt=False))

    def _greet(self) -> None:
        self._wait()
        verb = self.rng.choice(self._greetings)
        name = f"{self._unique()}.client.example"
        code = self.rng.choice((250, 250, 250, 502))
        offers = verb != "HELO" and self.rng.random() < 0.7
        self._put(f"{verb} {name}\r\n".encode())
        self.facts.append(Fact(f"{verb} {name}", [code]))
        self._flush()
        self._say(
            self._reply(code, self.rng.randint(2, 5) if offers else 1, "PIPELINING" if offers else "mx")
        )
        if code == 250:
            self._pipelining = offers
            self._lmtp = verb == "LHLO"
            self._accepted = 0

    def _mail(self) -> None:
        code = self._code(250, 250, 250, 451, 550)
        sender = f"a{self._unique()}@client.example"
        self._command(f"MAIL FROM:<{sender}> SIZE={self._unique()}", None, [code])
        if code == 250:
            self._accepted = 0
        for _ in range(self.rng.randint(0, 4)):
            code = self._code(250, 250, 251, 450, 550)
            self._command(f"RCPT TO:<b{self._unique()}@example.test>", None, [code])
            self._accepted += code < 300
        what = self.rng.random()
        if what < 0.6:
            self._data()
        elif what < 0.85:
            for _ in range(self.rng.randint(0, 2)):
                self._chunk(last=False)
            self._chunk(last=True)

    def _data(self) -> None:
        code = self._code(354, 354, 354, 451, 503, 554)
        self._command("DATA", "DATA", [code])
        self._wait()
        if code != 354:
            return
        lines = self.rng.choices(BODY_LINES, k=self.rng.randint(0, 5))
        body = "".join(
            f"{line}\r\n" for line in [*lines, *[f"{self._unique():0>40}"] * self.rng.randint(0, 1)]
        )
        body += "x" * self._unique() + "\r\n.\r\n"
        fact = Fact(f". {len(body)}")
        self.facts.append(fact)
        self._put(body.encode())
        self._await(fact, self._final_codes())
        if not self._pipelining:
            self._wait()

    def _chunk(self, *, last: bool) -> None:
        size = self._unique()
        content = b"".join(self.rng.choices(self._chunk_bytes, k=20)) * (1 + size // 20)
        fact = Fact(f"BDAT {size}{' LAST' if last else ''}")
        self.facts.append(fact)
        self._put(f"BDAT {size}{' LAST' if last else ''}\r\n".encode() + content[:size])
        self._await(fact, self._final_codes() if last else [self._code(250, 250, 503)])
        if not self._pipelining:
            self._wait()

    def _small(self) -> None:
        verb, known, codes = self.rng.choice(
            (
                ("RSET", "RSET", (250,)),
                ("NOOP", "NOOP", (250, 500)),
                ("VRFY b", "VRFY", (252, 550)),
                ("HELP", "HELP", (214, 502)),
                ("WIZ", "?", (500, 502)),
                ("", "?", (500,)),
                ("STARTTLS", "STARTTLS", (454, 502)),
                ("ETRN x", "ETRN", (250, 458)),
            )
        )
        code = self._code(*codes)
        self._command(verb, known, [code])
        if verb == "RSET":
            self._accepted = 0
        else:
            self._wait()

    def _auth(self) -> None:
        self._wait()
        fact = Fact("AUTH LOGIN")
        self.facts.append(fact)
        self._put(b"AUTH LOGIN\r\n")
        for _ in range(self.rng.randint(0, 2)):
            self._await(fact, [334])
            self._wait()
            self._put(f"{self.rng.choice(('', 'EHLO ', 'MAIL FROM:'))}{SECRET}\r\n".encode())
        self._await(fact, [self._code(235, 535, 454)])
        self._wait()

    def _final_codes(self) -> list[int]:
        count = max(self._accepted, 1) if self._lmtp else 1
        return [self._code(250, 250, 451, 554) for _ in range(count)]

    # ------------------------------------------------------------------ the client's end

    def _command(self, line: str, described: str | None, codes: list[int]) -> None:
        if described is None:
            verb, _, path = line.partition(" ")
            described = f"{verb} {path[path.index('<') :]}"
        fact = Fact(described)
        self.facts.append(fact)
        self._put(f"{line}\r\n".encode())
        self._await(fact, codes)
        if not self._pipelining:
            self._wait()

    def _put(self, data: bytes) -> None:
        self._out += data
        if self.rng.random() < 0.3:
            self._flush(self.rng.randint(0, len(self._out)))

    def _await(self, fact: Fact, codes: list[int]) -> None:
        fact.codes += codes
        replies = [(code, self.rng.choice((1, 1, 1, 2, 3))) for code in codes]
        self._waiting.append(_Waiting(self._sent + len(self._out), fact, replies))

    def _flush(self, length: int | None = None) -> None:
        data = self._out if length is None else self._out[:length]
        self._out = self._out[len(data) :]
        for piece in self._cut(data):
            self.steps.append(Piece(Side.CLIENT, piece, self._heard))
            self._sent += len(piece)
            if self.rng.random() < 0.2:
                self._answer_some()

    def _wait(self) -> None:
        """Sends all, and hears all replies."""
        self._flush()
        while self._waiting:
            self._answer_some()
        self._heard = self._said

    # ------------------------------------------------------------------ the server's end

    def _answer_some(self) -> None:
        """Answers some of the commands that have arrived; the client may hear it, or send on."""
        said = b""
        while self._waiting and self._waiting[0].end <= self._sent and (not said or self.rng.random() < 0.6):
            done = self._waiting.popleft()
            for code, lines in done.replies:
                said += self._reply(code, lines, "text")
        self._say(said)
        if self.rng.random() < 0.5:
            self._heard = self._said

    def _reply(self, code: int, lines: int, text: str) -> bytes:
        return b"".join(
            f"{code}{'-' if line < lines - 1 else ' '}{text}\r\n".encode() for line in range(lines)
        )

    def _say(self, data: bytes) -> None:
        for piece in self._cut(data):
            self.steps.append(Piece(Side.SERVER, piece))
            self._said += len(piece)
        if not self._waiting and not self._out:
            self._heard = self._said

    # ------------------------------------------------------------------ small things

    def _cut(self, data: bytes) -> list[bytes]:
        pieces = []
        while data:
            length = len(data) if self.rng.random() < 0.7 else self.rng.randint(1, len(data))
            pieces.append(data[:length])
            data = data[length:]
        return pieces

    def _code(self, *codes: int) -> int:
        return self.rng.choice(codes)

    def _unique(self) -> int:
        self._counter += self.rng.randint(1, 9)
        return self._counter


def lose_some(steps: list[Piece | Loss | Close], seed: int, share: float) -> list[Piece | Loss | Close]:
    """The same session with whole pieces lost, or a part of them."""
    # Not the numbers that made the session, where both seeds are the same: nothing on a wire is lost by them.
    rng = random.Random(f"lost {seed}")
    lossy: list[Piece | Loss | Close] = []
    for step in steps:
        if not isinstance(step, Piece) or rng.random() >= share:
            lossy.append(step)
            continue
        length = len(step.data)
        start, end = (0, length) if rng.random() < 0.5 else sorted(rng.choices(range(length + 1), k=2))
        for part in (
            Piece(step.side, step.data[:start], step.heard),
            Loss(step.side, end - start),
            Piece(step.side, step.data[end:], step.heard),
        ):
            if part.length if isinstance(part, Loss) else part.data:
                lossy.append(part)  # noqa: PERF401
    return lossy
