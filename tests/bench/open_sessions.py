"""Opens sessions and holds them: `open_sessions.py SERVER CLIENT_ADDRESS SESSIONS PER_SECOND`.

They stop at different places: after EHLO, after a recipient, in the middle of a message. Says "open" when all
of them stand, and closes them when its standard input ends.
"""

import resource
import socket
import sys
import time
from typing import Final

_TIMEOUT_SECONDS: Final = 60.0
_HELLO: Final = (b"EHLO client.test\r\n",)
_RECIPIENT: Final = (*_HELLO, b"MAIL FROM:<a@client.test>\r\n", b"RCPT TO:<user1@example.test>\r\n")
_MESSAGE: Final = (*_RECIPIENT, b"DATA\r\n")
_STAGES: Final = (_HELLO, _RECIPIENT, _MESSAGE)
_HALF_A_MESSAGE: Final = b"Subject: unfinished\r\n\r\nThis goes on.\r\n"


def open_session(server: str, client: str, said: tuple[bytes, ...]) -> socket.socket:
    session = socket.create_connection((server, 25), _TIMEOUT_SECONDS, (client, 0))
    _await_reply(session)
    for line in said:
        session.sendall(line)
        _await_reply(session)
    if said is _MESSAGE:
        session.sendall(_HALF_A_MESSAGE)
    return session


def _await_reply(session: socket.socket) -> None:
    """The server writes each reply at once, so it comes at once."""
    if session.recv(4_096)[:1] not in (b"2", b"3"):
        raise RuntimeError("the server refused")


def main() -> None:
    server, client, *numbers = sys.argv[1:]
    sessions, per_second = map(int, numbers)
    # Each connection is a descriptor.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    held = []
    started = time.monotonic()
    for number in range(sessions):
        time.sleep(max(0.0, started + number / per_second - time.monotonic()))
        held.append(open_session(server, client, _STAGES[number % len(_STAGES)]))
    print("open", flush=True)
    sys.stdin.read()
    for session in held:
        session.close()


if __name__ == "__main__":
    main()
