"""The password server that Postfix asks: Dovecot's authentication protocol, version 1.1, for one user.

https://doc.dovecot.org/developer_manual/design/auth_protocol/: lines of fields separated by tabs.
"""

import base64
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

USER: Final = "alice"
PASSWORD: Final = "secret"
_READY: Final = b"ready\n"
GREETING: Final = (
    b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\n"
    b"SPID\t1\nCUID\t1\nCOOKIE\t00000000000000000000000000000000\nDONE\n"
)


class _Conversation(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(GREETING)
        answers: dict[str, list[str]] = {}
        for line in self.rfile:
            verb, *fields = line.decode().rstrip("\n").split("\t")
            if verb == "AUTH":
                number, mechanism = fields[:2]
                answers[number] = [mechanism]
                response = next((field[5:] for field in fields[2:] if field.startswith("resp=")), None)
            elif verb == "CONT":
                number, response = fields
            else:
                continue
            if response is not None:
                answers[number].append(_text(response))
            self.wfile.write(_decide(number, answers[number]).encode())


def _decide(number: str, answers: list[str]) -> str:
    """The reply to a conversation that so far is the mechanism and the responses to it."""
    mechanism, *responses = answers
    if mechanism == "PLAIN" and responses:
        _, user, password = [*responses[0].split("\0"), "", ""][:3]
    elif mechanism == "LOGIN" and len(responses) == 2:
        user, password = responses
    else:
        prompt = {("LOGIN", 0): "Username:", ("LOGIN", 1): "Password:"}.get((mechanism, len(responses)), "")
        return f"CONT\t{number}\t{base64.b64encode(prompt.encode()).decode()}\n"
    verdict = "OK" if (user, password) == (USER, PASSWORD) else "FAIL"
    return f"{verdict}\t{number}\tuser={user}\n"


def _text(encoded: str) -> str:
    try:
        return base64.b64decode(encoded).decode("utf-8", "replace")
    except ValueError:
        return ""


class _Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 128  # who finds it full is refused, and Postfix' smtpd(8) ends by that
    daemon_threads = True
    block_on_close = False


class PasswordServer:
    """Answers on a Unix socket, in a process of its own, as Dovecot does: this one has much else to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        self.path.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, __file__, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != _READY:
            self._process.communicate()
            raise RuntimeError(f"no password server: status {self._process.returncode}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


def main(path: Path) -> None:
    """Serves until its standard input ends, and so never longer than who started it."""
    with _Server(str(path), _Conversation) as server:
        path.chmod(0o666)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdout.buffer.write(_READY)
        sys.stdout.buffer.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
