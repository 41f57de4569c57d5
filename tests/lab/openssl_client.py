"""`openssl s_client` as a client, which keeps a TLS session in a file, for another run to resume.

It greets by itself before STARTTLS, and shows what the server says between notes of its own.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from tests.lab.network import Namespace
from tests.lab.raw_client import ConversationEndedError
from tests.lab.truth import DataTruth, Endpoint, InsideTruth, SessionTruth, TransactionTruth

_REPLY: Final = re.compile(rb"(\d{3})([ -])")
_RESUMED: Final = b"Reused, "


def run_openssl(
    namespace: Namespace,
    server: Endpoint,
    client: Endpoint,
    *options: str | Path,
    sender: str,
    recipients: Sequence[str],
    text: bytes,
) -> tuple[SessionTruth, bool]:
    """One message. Its options as it names them: `-tls1_3`, `-sess_out FILE`, `-sess_in FILE`. True: the TLS
    session was resumed."""
    is_implicit = server[1] == 465
    command: list[str | Path] = [
        # Else its own notes come in blocks, in the middle of what the server says.
        *("timeout", "20", "stdbuf", "-oL"),
        *("openssl", "s_client", "-connect", f"{server[0]}:{server[1]}", "-bind", f"{client[0]}:{client[1]}"),
        *(() if is_implicit else ("-starttls", "smtp", "-name", "openssl.test")),
        *("-nocommands", "-ign_eof", *options),
    ]
    process = subprocess.Popen(
        namespace.command(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, process.stdin as to_server:
        output = _Output(process.stdout)
        if is_implicit:
            output.reply()  # the greeting; that in clear is not shown

        def ask(line: str) -> int:
            to_server.write(f"{line}\r\n".encode())
            return output.reply()

        ask("EHLO openssl.test")
        mail_code = ask(f"MAIL FROM:<{sender}>")
        answered = tuple((to, ask(f"RCPT TO:<{to}>")) for to in recipients)
        ask("DATA")
        to_server.write(text + b".\r\n")
        data = DataTruth("DATA", len(text) + 3, output.reply())
        ask("QUIT")
    truth = SessionTruth(
        witness="openssl",
        client=client,
        server=server,
        channel="implicit_tls" if is_implicit else "starttls",
        envelope="hidden",
        inside=InsideTruth(
            transactions=(TransactionTruth(sender, mail_code, answered, data, "accepted"),), auth=()
        ),
    )
    return truth, output.is_resumed


class _Output:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.is_resumed = False

    def reply(self) -> int:
        """The code of the next."""
        for line in iter(self._stream.readline, b""):
            self.is_resumed |= line.startswith(_RESUMED)
            found = _REPLY.match(line)
            if found is not None and found[2] == b" ":
                return int(found[1])
        raise ConversationEndedError("openssl has ended")
