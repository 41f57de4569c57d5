"""Passwords and bodies inside TLS: in nothing that is written, in no memory of watch or its keeper, in no map
of the kernel. Senders are there: the search finds what there is."""

import os
import secrets
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.hygiene.memory import found_in
from tests.hygiene.test_secrets import FORGETFUL
from tests.lab import exim
from tests.lab.laboratory import Laboratory
from tests.lab.network import client_address, server_address
from tests.lab.raw_client import RawClient
from tests.lab.sasl import PASSWORD, USER
from tests.lab.scenario import RECIPIENT, TLS_1_2, TLS_1_3
from tests.lab.tls_scenario import Way, connected, sender
from tests.tls_tap.tapped_watch import TappedWatch, bpftool, kernel_numbers

pytestmark = [
    pytest.mark.live,
    pytest.mark.thorough,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and uprobes need root"),
]

WAYS: Final = [
    Way((server_address(1), 587), TLS_1_3),
    Way((server_address(1), 465), TLS_1_2),
    Way((server_address(exim.NUMBER), 25), TLS_1_3),
    Way((server_address(exim.NUMBER), 465), TLS_1_2),
]
_WINDOW_BYTES: Final = 256
RING: Final = "anon_inode:bpf-map"


class Secrets:
    """Words with a mark in them, and what is found where one of them stands, or half of it."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(6)
        mark = self._mark.encode()
        # Base64 takes three bytes at a time: which three, depends on what stands before.
        encoded = [b64encode(b"\0" * before + mark)[4:16] for before in range(3)]
        right = b64encode(f"\0{USER}\0{PASSWORD}".encode())
        self.forms = [mark, *encoded, right, right[4:16]]

    def word(self) -> str:
        return f"{self._mark}{secrets.token_hex(2)}{self._mark}"

    def login(self) -> tuple[str, str]:
        return self.word(), self.word()

    def body(self) -> bytes:
        """Of so many bytes that the last window in which the kernel's programs look at it is full."""
        words = "".join(f"{self.word()} {self.word()}\r\n" for _ in range(20))
        text = f"Subject: {self.word()}\r\nX-{self.word()}: {self.word()}\r\n\r\n{words}"
        rest = -(len(text) + len("\r\n")) % _WINDOW_BYTES
        return f"{text}{(self._mark * _WINDOW_BYTES)[:rest]}\r\n".encode()


@dataclass(slots=True)
class Run:
    secrets: Secrets
    senders: list[bytes]
    written: dict[str, bytes]
    memory: dict[str, Counter[str]]
    """Of the secrets, by process."""
    senders_in_memory: Counter[str]
    """Of watch."""
    maps: dict[str, bytes]
    """All that the tap's maps hold, by their names, while a secret is on its way in each of two sessions."""
    open_client: bytes
    """The address of one of these two, as the kernel has it."""


@pytest.fixture(scope="module")
def run(lab: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    some = Secrets()
    folder = tmp_path_factory.mktemp("secrets")
    options = ("--log-level", "debug")
    with TappedWatch(lab.network.server, folder, *options, environment=FORGETFUL) as watch:
        with lab.network.client.threads(1) as thread:
            senders = [thread.submit(mail_with_secrets, way, some).result() for way in WAYS]
            waiting = thread.submit(in_the_middle_of_secrets, some).result()
        watch.await_silence(timeout_seconds=4)  # two sessions are open
        keeper = watch.keeper
        maps = maps_of(keeper)
        memory = {
            "watch": found_in(watch.pid, some.forms),
            "keeper": found_in(keeper, some.forms),
        }
        senders_in_memory = found_in(watch.pid, senders)
        ip, _ = waiting[0].local
        metrics = watch.metrics().encode()
        for client in waiting:
            client.abort()
        assert watch.stop() == 0
        written = {
            "records": watch.records_file.read_bytes(),
            "log": watch.said().encode(),
            "metrics": metrics,
        }
        yield Run(
            some,
            senders,
            written,
            memory,
            senders_in_memory,
            maps,
            bytes(10) + b"\xff\xff" + bytes(map(int, ip.split("."))),
        )


def mail_with_secrets(way: Way, some: Secrets) -> bytes:
    """Its sender."""
    for log_in in (RawClient.auth_plain, RawClient.auth_plain_when_asked, RawClient.auth_login):
        with connected(way, client_address(3)) as client:
            client.hello()
            assert log_in(client, *some.login()) == 535
            client.command(f"{some.word()} {some.word()}")
            client.close()
    with connected(way, client_address(3)) as client:
        client.hello()
        assert client.auth_plain(USER, PASSWORD) == 235
        me = sender(client)
        client.mail(me)
        client.recipient(RECIPIENT)
        client.data(some.body())
        client.mail("")
        client.recipient(RECIPIENT)
        client.chunks([some.body(), some.body()])
        client.quit()
        return me.encode()


def in_the_middle_of_secrets(some: Secrets) -> list[RawClient]:
    """One says who it is and not yet the password, the other is in its message."""
    first, second = (connected(WAYS[2], client_address(number)) for number in (3, 4))
    for client in (first, second):
        client.hello()
    user, _ = some.login()
    first.command("AUTH LOGIN")
    first.command(b64encode(user.encode()).decode())
    second.mail(sender(second))
    second.recipient(RECIPIENT)
    second.command("DATA")
    second.send_bytes(some.body())
    return [first, second]


def maps_of(process: int) -> dict[str, bytes]:
    """The keys and values of every map of the process' programs; a ring buffer has none."""
    programs = kernel_numbers(process, "prog")
    numbers = {
        number for one in bpftool("prog", "show") if one["id"] in programs for number in one["map_ids"]
    }
    return {
        one["name"]: all_bytes(bpftool("map", "dump", "id", str(one["id"])))
        for one in bpftool("map", "show")
        if one["id"] in numbers and one["type"] not in ("ringbuf", "prog_array")
    }


def all_bytes(dumped: Any) -> bytes:
    if isinstance(dumped, dict):
        return b"".join(
            all_bytes(value) for name, value in dumped.items() if name in ("key", "value", "values")
        )
    if dumped and isinstance(dumped[0], str):
        return bytes(int(byte, 16) for byte in dumped)
    return b"".join(map(all_bytes, dumped))


def test_no_secret_is_in_anything_that_is_written(run: Run) -> None:
    for what, text in run.written.items():
        assert not [form for form in run.secrets.forms if form in text], what
    assert all(sender in run.written["records"] for sender in run.senders), "but senders are, in the records"
    assert not [sender for sender in run.senders if sender in run.written["log"] + run.written["metrics"]]


def test_no_secret_is_in_the_memory_of_watch_or_of_its_keeper(run: Run) -> None:
    assert run.memory == {"watch": Counter(), "keeper": Counter()}
    assert run.senders_in_memory[RING] >= len(run.senders), "but senders are, where the kernel put them"


def test_no_secret_is_in_a_map_of_the_kernel_even_while_it_is_on_its_way(run: Run) -> None:
    assert {"threads", "servers", "streams"} <= run.maps.keys()
    for name, content in run.maps.items():
        assert not [form for form in run.secrets.forms if form in content], name
    assert run.open_client in run.maps["streams"], "but whose connection it is"
