"""A server with TLS that is told what to say, a client that is told how to cut it, and what the tap told.

Both run here, in threads; the kernel, OpenSSL and the sockets are the real ones.
"""

import json
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from probes.tls_tap.event import Kind, TapEvent
from probes.tls_tap.keeper import Keeper
from probes.tls_tap.tap import TlsTap
from tests.lab.certificates import make_certificate

_PATIENCE_SECONDS: Final = 5.0


@dataclass(slots=True)
class Line:
    """One turn: the client sends this, in pieces of these sizes, and the server answers when it has all."""

    sent: bytes
    reply: bytes = b""
    meanwhile: Callable[[], None] = lambda: None
    """What the server does before it answers."""


Script = Sequence[Line]


def lines(*turns: tuple[str, str]) -> list[Line]:
    """Without their line ends."""
    return [Line(f"{sent}\r\n".encode(), f"{reply}\r\n".encode()) for sent, reply in turns]


@dataclass(slots=True)
class Tapped:
    """What the tap told of one connection."""

    events: list[TapEvent] = field(default_factory=list)

    @property
    def transcript(self) -> list[str]:
        """However it came in pieces."""
        told: list[str] = []
        line = b""
        for event in self.events:
            if event.kind is Kind.COMMANDS:
                line += event.text
                while b"\n" in line:
                    first, _, line = line.partition(b"\n")
                    told.append(f"C: {first.rstrip(bytes([13])).decode()}")
                continue
            if line:
                told.append(f"C: {line.decode()}...")
                line = b""
            match event.kind:
                case Kind.REPLY:
                    told.append(f"S: {event.text.decode()}")
                case Kind.BEGUN | Kind.CLOSED | Kind.ENDED:
                    told.append(event.kind.name)
                case _:
                    told.append(f"{event.kind.name} {event.length}")
        return told

    @property
    def spoken(self) -> list[str]:
        """Without its beginning and end."""
        assert self.transcript[0] == "BEGUN"
        assert self.transcript[-1] == "ENDED"
        return self.transcript[1:-1]


class TapAndServer:
    """A tap on this process' own OpenSSL."""

    def __init__(self, folder: Path) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.certificate = made = make_certificate(folder)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(made.certificate, made.key)
        self.client_context = ssl.create_default_context()
        self.client_context.check_hostname = False
        self.client_context.verify_mode = ssl.CERT_NONE
        here, self._there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.keeper = Keeper(frozenset({self.port}))
        self.keeper.attach()
        self.keeper.introduce(self._there)
        self.tap = TlsTap.introduced(here)

    def close(self) -> None:
        self.listener.close()
        self.tap.close()
        self._there.close()
        self.keeper.close()

    def play(
        self,
        script: Script,
        *,
        banner: bytes = b"",
        piece_bytes: int = 1 << 20,
        read_bytes: int = 65_536,
        write_bytes: int = 1 << 20,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> Tapped:
        """`piece_bytes`: in pieces of what size the client sends; `read_bytes` and `write_bytes`: how much
        the server reads and writes at once."""
        server = threading.Thread(target=self._serve, args=(script, banner, read_bytes, write_bytes))
        server.start()
        self.client_context.minimum_version = self.client_context.maximum_version = version
        with self.connect() as client:
            _expect(client, banner)
            for turn in script:
                for begin in range(0, len(turn.sent), piece_bytes):
                    client.sendall(turn.sent[begin : begin + piece_bytes])
                _expect(client, turn.reply)
            # The server goes without a good-bye of its own, and Python 3.13 minds.
            with suppress(ssl.SSLEOFError):
                client.unwrap()
        server.join(_PATIENCE_SECONDS)
        return self.told()

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), _PATIENCE_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.client_context.wrap_socket(plain)

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def in_map(self, name: str) -> list[bytes]:
        """The values of a map of the tap's programs: root may look there."""
        program = _bpftool("prog", "show", "id", str(_number_of(self.keeper)))
        values: list[bytes] = []
        for number in program["map_ids"]:
            if _bpftool("map", "show", "id", str(number))["name"] == name:
                entries = _bpftool("map", "dump", "id", str(number))
                values += [bytes(int(byte, 16) for byte in entry["value"]) for entry in entries]
        return values

    def _serve(self, script: Script, banner: bytes, read_bytes: int, write_bytes: int) -> None:
        with self.accept() as connection, self.context.wrap_socket(connection, server_side=True) as server:
            _write(server, banner, write_bytes)
            for turn in script:
                got = 0
                while got < len(turn.sent):
                    got += len(server.recv(read_bytes))
                turn.meanwhile()
                _write(server, turn.reply, write_bytes)
            server.recv(1)

    def told(self) -> Tapped:
        """Of the one connection, to its end."""
        tapped = Tapped()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not tapped.events or tapped.events[-1].kind is not Kind.ENDED:
            assert time.monotonic() < deadline, tapped.transcript
            tapped.events += self.tap.take()
            time.sleep(0.005)
        assert len({event.cookie for event in tapped.events}) == 1
        assert [event.number for event in tapped.events] == list(range(len(tapped.events)))
        return tapped


def _write(server: ssl.SSLSocket, data: bytes, write_bytes: int) -> None:
    for begin in range(0, len(data), write_bytes):
        server.sendall(data[begin : begin + write_bytes])


def _expect(client: ssl.SSLSocket, reply: bytes) -> None:
    got = b""
    while len(got) < len(reply):
        piece = client.recv(65_536)
        assert piece, (got, reply)
        got += piece
    assert got == reply


def _number_of(keeper: Keeper) -> int:
    """The kernel's, of one of its programs."""
    information = Path(f"/proc/self/fdinfo/{keeper._programs['leave_read']}").read_text()
    (number,) = re.findall(r"^prog_id:\s*(\d+)$", information, re.MULTILINE)
    return int(number)


def _bpftool(*arguments: str) -> Any:
    finished = subprocess.run(["bpftool", "-j", *arguments], capture_output=True, check=True)
    return json.loads(finished.stdout)
