"""A client that says exactly what it is told to, and writes down what it sent and was answered.

TLS runs over memory buffers, so that it also knows how many bytes went each way, encrypted or not.
"""

import base64
import contextlib
import errno
import itertools
import socket
import ssl
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from tests.lab.chronicle import Chronicle, keywords_of
from tests.lab.truth import LOST, Endpoint, SessionTruth

_TIMEOUT_SECONDS: Final = 10.0
# Below those that the kernel gives by itself (32,768 and up).
_PORTS: Final = itertools.cycle(range(10_000, 20_000))
_READ_SIZE: Final = 65_536
# SO_LINGER with a time of zero: close() sends a reset instead of an orderly end.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class ConversationEndedError(Exception):
    """The server closed the connection, or TLS failed, where a reply was due."""


def trusting_context(
    version: ssl.TLSVersion | None = None, *, verify: bool = False, ciphers: str | None = None
) -> ssl.SSLContext:
    """Takes any certificate, as opportunistic TLS does; with `verify`, none that a server of the lab has."""
    context = ssl.create_default_context() if verify else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = verify
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if ciphers is not None:
        context.set_ciphers(ciphers)
    return context


class RawClient:
    """One connection; a context manager. What a method returns is the reply's code."""

    def __init__(
        self,
        server: Endpoint,
        client_ip: str,
        *,
        tls: ssl.SSLContext | None = None,
        proxy_header: bytes = b"",
        await_banner: bool = True,
        name: str = "raw client",
        port: int = 0,
        resume: ssl.SSLSession | None = None,
    ) -> None:
        """
        Args:
            tls: TLS from the first byte on.
            port: of the client's; 0 for one that no client has had for 10,000 sessions.
            resume: see `starttls`.
        """
        self._socket = _connect(server, (client_ip, port)) if port else _connect_anew(server, client_ip)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._sent = self._received = 0
        self._tls: ssl.SSLObject | None = None
        client: Endpoint = self._socket.getsockname()[:2]
        self.chronicle = Chronicle(name, client, server)
        with contextlib.ExitStack() as unless_greeted:
            unless_greeted.callback(self._socket.close)
            if proxy_header:
                self._send(proxy_header)
            if tls is not None and not self._handshake(tls, None, resume):
                raise ConversationEndedError("TLS from the first byte failed")
            if await_banner:
                self.await_banner()
            unless_greeted.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def local(self) -> Endpoint:
        name: Endpoint = self._socket.getsockname()[:2]
        return name

    @property
    def remote(self) -> Endpoint:
        name: Endpoint = self._socket.getpeername()[:2]
        return name

    def truth(self) -> SessionTruth:
        self.chronicle.client_bytes = self._sent
        return self.chronicle.truth()

    def await_banner(self) -> int:
        code, lines = self.reply()
        self.chronicle.banner(code, "\n".join(lines))
        return code

    def hello(self, name: str = "client.test", verb: str = "EHLO") -> int:
        self.send_line(f"{verb} {name}")
        code, lines = self.reply()
        self.chronicle.helo(verb, name, code, keywords_of(lines))
        return code

    def starttls(
        self, context: ssl.SSLContext, *, sni: str | None = None, resume: ssl.SSLSession | None = None
    ) -> bool:
        """True when TLS is established. `resume`: of an earlier connection with the same context."""
        return self.ask_starttls() == 220 and self._handshake(context, sni, resume)

    @property
    def tls_session(self) -> ssl.SSLSession:
        """For another connection to resume. With TLS 1.3 the server hands it out after the handshake: there
        once something was read."""
        assert self._tls is not None
        assert self._tls.session is not None
        return self._tls.session

    @property
    def is_resumed(self) -> bool:
        return self._tls is not None and bool(self._tls.session_reused)

    def ask_starttls(self) -> int:
        code = self.command("STARTTLS")
        self.chronicle.starttls(code)
        return code

    def start_handshake_only(self) -> None:
        """Sends the ClientHello, and nothing after it."""
        outgoing = ssl.MemoryBIO()
        half = trusting_context().wrap_bio(ssl.MemoryBIO(), outgoing)
        try:
            half.do_handshake()
        except ssl.SSLWantReadError:
            self.chronicle.hello_sent("")
            self._send(outgoing.read())

    def auth_plain(self, user: str, password: str) -> int:
        code = self.command("AUTH PLAIN " + _base64(f"\0{user}\0{password}"))
        self.chronicle.auth("PLAIN", code)
        return code

    def auth_plain_when_asked(self, user: str, password: str) -> int:
        """The response comes on a line of its own."""
        code = self.command("AUTH PLAIN")
        if code == 334:
            code = self.command(_base64(f"\0{user}\0{password}"))
        self.chronicle.auth("PLAIN", code)
        return code

    def auth_cancelled(self) -> int:
        code = self.command("AUTH LOGIN")
        if code == 334:
            code = self.command("*")
        self.chronicle.auth("LOGIN", code)
        return code

    def auth_login(self, user: str, password: str) -> int:
        code = self.command("AUTH LOGIN")
        for answer in (user, password):
            if code == 334:
                code = self.command(_base64(answer))
        self.chronicle.auth("LOGIN", code)
        return code

    def mail(self, address: str, parameters: str = "") -> int:
        code = self.command(f"MAIL FROM:<{address}>{parameters}")
        self.chronicle.mail(address, code)
        return code

    def recipient(self, address: str) -> int:
        code = self.command(f"RCPT TO:<{address}>")
        self.chronicle.recipient(address, code)
        return code

    def data(self, body: bytes) -> int:
        """`body`: whole lines, with a dot doubled where a line begins with one."""
        code = self.command("DATA")
        if code != 354:
            self.chronicle.data("DATA", None, code)
            return code
        self._send(body + b".\r\n")
        return self._end_of_data("DATA", len(body) + 3)

    def chunks(self, chunks: Sequence[bytes]) -> int:
        """BDAT, each chunk answered before the next."""
        for chunk in chunks[:-1]:
            self._send(f"BDAT {len(chunk)}\r\n".encode() + chunk)
            self.reply()
        self._send(f"BDAT {len(chunks[-1])} LAST\r\n".encode() + chunks[-1])
        return self._end_of_data("BDAT", sum(map(len, chunks)))

    def pipelined(self, sender: str, recipients: Sequence[str], body: bytes) -> int:
        """MAIL, all RCPT and DATA in one segment, as RFC 2920 allows."""
        lines = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{to}>" for to in recipients), "DATA"]
        self._send("".join(f"{line}\r\n" for line in lines).encode())
        self.chronicle.mail(sender, self.reply()[0])
        for to in recipients:
            self.chronicle.recipient(to, self.reply()[0])
        code, _ = self.reply()
        if code != 354:
            self.chronicle.data("DATA", None, code)
            return code
        self._send(body + b".\r\n")
        return self._end_of_data("DATA", len(body) + 3)

    def rset(self) -> int:
        code = self.command("RSET")
        self.chronicle.reset()
        return code

    def command(self, line: str) -> int:
        """A command of which only the reply matters."""
        self.send_line(line)
        return self.reply()[0]

    def send_line(self, line: str) -> None:
        self._send(f"{line}\r\n".encode())

    def send_unanswered_body(self, body: bytes) -> None:
        """DATA, and a part of the message that will never end."""
        if self.command("DATA") == 354:
            self._send(body)
            self.chronicle.data("DATA", None, LOST)

    def send_bytes(self, data: bytes) -> None:
        self._send(data)

    def quit(self) -> None:
        self.command("QUIT")
        self._read_to_the_end()
        self.chronicle.end("quit")
        self._socket.close()

    def close(self) -> None:
        """Ends without QUIT."""
        with contextlib.suppress(OSError):  # the server may have gone already
            self._socket.shutdown(socket.SHUT_WR)
        self._read_to_the_end()
        self.chronicle.end("client_closed")
        self._socket.close()

    def abort(self) -> None:
        """Resets the connection."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._socket.close()
        self.chronicle.end("reset")

    def await_close(self) -> None:
        """Waits until the server closes."""
        self._read_to_the_end()
        self.chronicle.end("server_closed")
        self._socket.close()

    def reply(self) -> tuple[int, list[str]]:
        """A whole reply: its code and its lines without it."""
        lines = []
        while True:
            while b"\r\n" not in self._buffer:
                self._buffer += self._receive()
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            text = line.decode("utf-8", "backslashreplace")
            lines.append(text[4:])
            if text[3:4] != "-":
                return int(text[:3]), lines

    def _end_of_data(self, verb: str, wire_bytes: int) -> int:
        code, _ = self.reply()
        self.chronicle.data(verb, wire_bytes, code)
        return code

    def _handshake(
        self, context: ssl.SSLContext, sni: str | None, resume: ssl.SSLSession | None = None
    ) -> bool:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=sni, session=resume)
        self.chronicle.hello_sent(sni or "")
        while True:
            try:
                session.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                try:
                    self._incoming.write(self._read_socket())
                except ConversationEndedError:
                    return False
            except ssl.SSLError:
                self._flush()
                return False
            else:
                break
        self._flush()
        self._tls = session
        version, cipher = session.version(), session.cipher()
        assert version is not None
        assert cipher is not None
        self.chronicle.tls_established(version, cipher[0])
        return True

    def _send(self, data: bytes) -> None:
        if self._tls is None:
            self._socket.sendall(data)
            self._sent += len(data)
        else:
            self._tls.write(data)
            self._flush()

    def _flush(self) -> None:
        data = self._outgoing.read()
        self._socket.sendall(data)
        self._sent += len(data)

    def _receive(self) -> bytes:
        while self._tls is not None:
            try:
                if data := self._tls.read(_READ_SIZE):
                    return data
                raise ConversationEndedError("close_notify")
            except ssl.SSLWantReadError:
                self._incoming.write(self._read_socket())
            except ssl.SSLZeroReturnError as error:
                raise ConversationEndedError("close_notify") from error
        return self._read_socket()

    def _read_socket(self) -> bytes:
        data = self._socket.recv(_READ_SIZE)
        if not data:
            raise ConversationEndedError(f"the server closed the connection: {self.remote}")
        self._received += len(data)
        return data

    def _read_to_the_end(self) -> None:
        """What is still to come, so that the truth knows how many bytes the server sent."""
        try:
            while True:
                self._read_socket()
        except ConversationEndedError:
            self.chronicle.server_bytes = self._received
        except OSError:
            # Reset by the server: what it sent last may be lost on this side.
            return


def _connect(server: Endpoint, client: Endpoint) -> socket.socket:
    return socket.create_connection(server, timeout=_TIMEOUT_SECONDS, source_address=client)


def _connect_anew(server: Endpoint, client_ip: str) -> socket.socket:
    """The kernel itself may give the port of a session that has just ended: then both have the same ends."""
    while True:
        try:
            return _connect(server, (client_ip, next(_PORTS)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
