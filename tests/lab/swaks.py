"""swaks as a client. Its transcript is its testimony:

<-  220 mx.example.test ESMTP       a reply line in clear; <** one that swaks calls an error
 -> EHLO client.test                a command or body line in clear
<~  and  ~>                         the same inside TLS; <~* an error
=== TLS started with cipher TLSv1.3:TLS_AES_256_GCM_SHA384:256
"""

import re
from typing import Final

from tests.lab.chronicle import Chronicle, keywords_of
from tests.lab.network import Namespace
from tests.lab.truth import Endpoint, SessionTruth

_SENT: Final = (" -> ", " ~> ")
_RECEIVED: Final = re.compile(r"^<(?:-|\*\*|~\*?) +(?P<code>\d{3})(?P<mark>[ -])?(?P<text>.*)$")
# Its exit codes for wrong options, no connection, and a module of Perl's that is missing.
_NO_SESSION: Final = {1, 2, 10}
_TLS: Final = re.compile(r"^=== TLS started with cipher (?P<version>[^:]+):(?P<cipher>[^:]+)")


def run_swaks(
    namespace: Namespace, server: Endpoint, client: Endpoint, *options: str, direction: str = "inbound"
) -> SessionTruth:
    """One session, from that address and port; its options as swaks names them."""
    (server_ip, server_port), (client_ip, client_port) = server, client
    finished = namespace.run(
        [
            *("swaks", "--server", f"{server_ip}", "--port", str(server_port)),
            *("--local-interface", client_ip, "--local-port", str(client_port)),
            *("-6" if ":" in server_ip else "-4", "--timeout", "10", *options),
        ],
        check=False,  # a refused recipient is a status of its own
    )
    if finished.returncode in _NO_SESSION:
        raise RuntimeError(f"swaks: {finished.stdout}{finished.stderr}")
    chronicle = Chronicle("swaks", client, server, direction=direction)
    _read_transcript(finished.stdout.splitlines(), chronicle)
    return chronicle.truth()


def _read_transcript(transcript: list[str], chronicle: Chronicle) -> None:
    command = "banner"
    challenged = False
    """The server asked for more of an AUTH: what is sent next is no command."""
    reply: list[str] = []
    body_bytes: int | None = None
    """While a body is under way."""
    for line in transcript:
        if found := _TLS.match(line):
            chronicle.hello_sent("")
            chronicle.tls_established(found["version"], found["cipher"])
        elif line.startswith(_SENT):
            text = line[len(_SENT[0]) :]
            if body_bytes is None:
                command = command if challenged else text
            else:
                body_bytes += len(text.encode()) + 2
                command = "end of data"
        elif found := _RECEIVED.match(line):
            reply.append(found["text"])
            if found["mark"] == "-":
                continue
            code = int(found["code"])
            challenged = code == 334
            if command == "DATA" and code == 354:
                body_bytes = 0
            elif command == "end of data":
                chronicle.data("DATA", body_bytes, code)
                body_bytes = None
            elif not challenged:
                _tell(chronicle, command, code, reply)
            reply = []
    chronicle.end("quit")


def _tell(chronicle: Chronicle, command: str, code: int, reply: list[str]) -> None:
    verb, _, argument = command.partition(" ")
    address = argument.partition("<")[2].partition(">")[0]
    if command == "banner":
        chronicle.banner(code, "\n".join(reply))
    elif verb in ("EHLO", "HELO"):
        chronicle.helo(verb, argument, code, keywords_of(reply))
    elif verb == "STARTTLS":
        chronicle.starttls(code)
    elif verb == "MAIL":
        chronicle.mail(address, code)
    elif verb == "RCPT":
        chronicle.recipient(address, code)
    elif verb == "DATA":
        chronicle.data("DATA", None, code)
    elif verb == "AUTH":
        chronicle.auth(argument.split()[0], code)
    elif verb == "RSET":
        chronicle.reset()
