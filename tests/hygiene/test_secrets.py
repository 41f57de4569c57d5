"""A run full of secrets, and none of them in anything that is written; and where in memory they were."""

import base64
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.hygiene.conftest import SETTLED_SECONDS, Said, hear
from tests.hygiene.memory import found_in
from tests.hygiene.wire import Server, converse

pytestmark = [
    pytest.mark.live,
    pytest.mark.thorough,
    pytest.mark.skipif(os.geteuid() != 0, reason="capturing, and reading another's memory, need root"),
]

FORGETFUL: Final = {
    # Freed memory is overwritten at once: what is found is something that is still in use.
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0",
}
RING: Final = "anon_inode:bpf-map"


@dataclass(slots=True)
class Secrets:
    """Makes them, and knows each by every form in which it went over the wire."""

    forms: list[bytes] = field(default_factory=list)

    def raw(self) -> bytes:
        secret = secrets.token_hex(12).encode()
        self.forms.append(secret)
        return secret

    def base64(self, *parts: bytes) -> bytes:
        """Of the parts, or of a secret. Known by its middle, too, if it is cut."""
        encoded = base64.b64encode(b"".join(parts) or self.raw())
        self.forms += [encoded, encoded[8:28]]
        return encoded

    def plain(self) -> bytes:
        return self.base64(b"\0", self.raw(), b"\0", self.raw())


def _sessions(some: Secrets) -> list[list[bytes]]:
    """Pieces as they are sent; each but the first waits for an answer."""
    hello, bye = b"EHLO client.example\r\n", b"QUIT\r\n"

    def line(*words: bytes) -> bytes:
        return b" ".join(words) + b"\r\n"

    xoauth2 = some.base64(b"user=", some.raw(), b"\1auth=Bearer ", some.raw(), b"\1\1")
    cut = line(b"AUTH PLAIN", some.plain())
    return [
        [hello, line(b"AUTH PLAIN", some.plain()), bye],
        [hello, line(b"AUTH PLAIN"), line(some.plain()), bye],
        [hello, line(b"AUTH LOGIN"), line(some.base64()), line(some.base64()), bye],
        [hello, line(b"AUTH LOGIN", some.base64()), line(some.base64()), bye],
        [hello, line(b"AUTH CRAM-MD5"), line(some.base64(some.raw(), b" ", some.raw())), bye],
        [hello, line(b"AUTH XOAUTH2", xoauth2), bye],
        [hello, line(b"AUTH XOAUTH2"), line(some.base64()), b"*\r\n", bye],
        # In lower case, with tabs, with too many words, with no mechanism at all.
        [hello, b"auth\tplain\t" + some.plain() + b"\r\n", b"aUtH  \t login\r\n", line(some.base64()), bye],
        [hello, line(b"AUTH PLAIN", some.plain(), some.raw(), some.raw()), bye],
        [hello, line(b"AUTH", some.raw()), line(b"AUTH " + some.base64()), bye],
        # In the wrong order, or as commands.
        [line(b"AUTH PLAIN", some.plain()), hello, line(some.raw()), line(some.base64()), bye],
        [
            hello,
            line(b"USER", some.raw()),
            line(b"PASS", some.raw()),
            line(b"XFOO AUTH PLAIN", some.plain()),
            bye,
        ],
        [hello, line(b"LOGIN", some.raw(), some.raw()), line(b"X-LOGIN " + some.base64()), bye],
        # In one piece, and in many.
        [hello + line(b"AUTH LOGIN") + line(some.base64()) + line(some.base64()) + bye],
        [hello, *(cut[at : at + 1] for at in range(12)), cut[12:40], cut[40:], bye],
        [hello, line(b"AUTH LOGIN"), some.base64()[:20], some.base64() + b"\r\n", line(some.base64()), bye],
        # Without an end, and too long.
        [hello, b"AUTH PLAIN " + some.plain()],
        [hello, line(b"AUTH PLAIN", b"A" * 20_000 + some.base64()), bye],
        [hello, line(b"AUTH LOGIN"), line(b"A" * 20_000 + some.base64()), line(some.base64()), bye],
        [b"EHLO a\r\nAUTH PLAIN " + some.plain() + b"\nAUTH LOGIN\n" + some.base64() + b"\n", bye],
    ]


@dataclass(slots=True)
class Run:
    secrets: Secrets
    said: Said
    memory: Counter[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    some, server = Secrets(), Server()
    memory: Counter[str] = Counter()

    def happening(server: Server, process: int) -> None:
        for pieces in _sessions(some):
            converse(server.port, pieces)
        time.sleep(SETTLED_SECONDS)
        memory.update(found_in(process, some.forms))

    said = hear(tmp_path_factory.mktemp("secrets"), server, happening, FORGETFUL)
    yield Run(some, said, memory)
    server.close()


def test_the_authentications_were_seen(run: Run) -> None:
    for records in (run.said.records, run.said.read_jsonl):
        assert records.count(b'"client":') == records.count(b"\n") * 2 == len(_sessions(Secrets())) * 2
        for mechanism in (b"PLAIN", b"LOGIN", b"CRAM-MD5", b"XOAUTH2", b"OTHER"):
            assert b'"mechanism":"' + mechanism + b'"' in records


def test_no_secret_is_in_anything_that_is_written(run: Run) -> None:
    for name, written in run.said.all().items():
        assert [form for form in run.secrets.forms if form in written] == [], name


def test_nothing_in_use_holds_a_secret_once_its_session_is_over(run: Run) -> None:
    # The ring buffer is the kernel's: its old packets stay until others take their place.
    assert set(run.memory) == {RING}, "it is found where it must be, and nowhere else"


def test_while_a_session_goes_on_no_more_than_an_unfinished_line_is_held(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    some, server = Secrets(), Server()
    unfinished = Secrets()
    memory: list[Counter[str]] = []

    def happening(server: Server, process: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            for line in (
                b"EHLO x",
                b"AUTH LOGIN",
                some.base64(),
                some.base64(),
                b"AUTH PLAIN " + some.plain(),
            ):
                connection.recv(4096)
                connection.sendall(line + b"\r\n")
            connection.recv(4096)
            connection.sendall(b"AUTH PLAIN " + unfinished.plain())
            time.sleep(SETTLED_SECONDS)
            memory.extend(found_in(process, one.forms) for one in (some, unfinished))

    hear(tmp_path_factory.mktemp("open"), server, happening, FORGETFUL)
    server.close()
    finished, begun = memory
    assert set(finished) == {RING}
    assert RING in begun
