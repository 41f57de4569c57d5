"""What tshark says of each TCP connection, gathered from its fields. Nothing of ours reads a byte here.

tshark tells what each packet holds; it doesn't say which reply answers which command. What is added here is
the little that follows from the order of the packets: when the client sent so many commands, and the server
then so many replies, they belong together one by one. Anything else stays unknown.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from tests.opinion.ask_tshark import Node, packets, smtp_trees

Endpoint = tuple[str, int]
_T = TypeVar("_T")

MAIL_PORTS: Final = frozenset((25, 465, 587))
SYN_ONLY: Final = 0x002
SYN_AND_ACK: Final = 0x012
HANDSHAKE_DONE: Final = 0b111
"""tcp.completeness: SYN, SYN-ACK and ACK were all seen."""
RECORD_HEADER_BYTES: Final = 5
CLIENT_HELLO: Final = "1"
SERVER_HELLO: Final = "2"
GOODBYE: Final = 421
DATA_GOES_ON: Final = 354
END_LINE: Final = b".\r\n"
AUTH_CONTINUES: Final = 334
"""RFC 4954: the client is asked for a line of AUTH's."""

RESENT: Final = (
    "tcp.analysis.retransmission",
    "tcp.analysis.fast_retransmission",
    "tcp.analysis.spurious_retransmission",
    "tcp.analysis.keep_alive",
)
FIELDS: Final = (
    "frame.number", "tcp.stream", "ip.src", "ipv6.src", "tcp.srcport", "ip.dst", "ipv6.dst", "tcp.dstport",
    "tcp.flags", "tcp.completeness", "tcp.len", *RESENT,
    "tls.record.length", "tls.handshake.type", "tls.handshake.version", "tls.handshake.ciphersuite",
    "tls.handshake.extensions.supported_version", "tls.handshake.extensions_server_name",
    "tls.handshake.extensions_alpn_str", "tls.handshake.ja4",
)  # fmt: skip


class Sent(StrEnum):
    """What a packet holds, in the words of tshark's SMTP tree."""

    COMMAND = "smtp.command_line"
    END_OF_DATA = "smtp.eom"
    REPLY = "smtp.response"
    OTHER = "other"
    """From the client, but neither: a part of a message, or a line of AUTH's."""


@dataclass(slots=True, eq=False)
class Said:
    """A command, the end of a message, a reply: with the frame that it stands in."""

    frame: int
    sent: Sent
    line: str = ""
    """A command's line without its end."""
    code: int | None = None
    """A reply's."""
    lines: tuple[str, ...] = ()
    """A reply's, without the code."""
    message_bytes: int | None = None
    """Of the end of a message: the bytes before it."""
    reply: "Said | None" = None
    """To what the client said; None where the order of packets doesn't tell."""

    @property
    def verb(self) -> str:
        words = self.line.split(maxsplit=1)
        return words[0].upper() if words else ""

    @property
    def argument(self) -> str:
        words = self.line.split(maxsplit=1)
        return words[1].strip() if len(words) > 1 else ""

    @property
    def reply_code(self) -> int | None:
        return self.reply.code if self.reply else None


@dataclass(frozen=True, slots=True)
class Message:
    """What followed DATA, or the chunks of one transaction."""

    verb: str
    wire_bytes: int | None
    code: int | None


@dataclass(slots=True)
class TlsOpinion:
    client_hello: bool = False
    version: int | None = None
    """As in the ServerHello: 0x0304 is TLS 1.3."""
    cipher: int | None = None
    sni: str | None = None
    alpn: str | None = None
    """The first that the client offers."""
    ja4: str | None = None
    """None where this version of tshark knows no JA4."""
    bytes_in_records: int = 0
    """The records' headers included."""


@dataclass(slots=True)
class Opinion:
    """Of one TCP connection."""

    stream: int
    client: Endpoint
    server: Endpoint
    established: bool = False
    """The three-way handshake was seen."""
    client_bytes: int = 0
    server_bytes: int = 0
    said: list[Said] = field(default_factory=list)
    tls: TlsOpinion | None = None
    frames: set[int] = field(default_factory=set)

    @property
    def banner(self) -> Said | None:
        """The first reply, if it came before any command."""
        return self.said[0] if self.said and self.said[0].sent is Sent.REPLY else None

    @property
    def offers_starttls(self) -> bool | None:
        """None where no EHLO was answered in clear."""
        offers = [one.reply.lines[1:] for one in self.commands("EHLO") if one.reply and one.reply.code == 250]
        return any("STARTTLS" in lines for lines in offers) if offers else None

    @property
    def messages(self) -> list[Message]:
        """In order. A DATA that was refused has none."""
        found: list[Message] = []
        chunks: list[Said] = []
        for one in [*self.said, None]:
            if one is None or one.verb == "MAIL":
                if chunks:
                    size = sum(_chunk_bytes(chunk) or 0 for chunk in chunks)
                    found.append(Message("BDAT", size, chunks[-1].reply_code))
                chunks = []
            elif one.verb == "BDAT" and _chunk_bytes(one) is not None:
                chunks.append(one)
            elif one.verb == "DATA" and one.reply_code in (None, DATA_GOES_ON):
                found.append(Message("DATA", None, None))
            elif one.sent is Sent.END_OF_DATA and found:
                length = one.message_bytes
                whole = None if length is None else length + len(END_LINE)
                found[-1] = Message("DATA", whole, one.reply_code)
        return found

    def commands(self, *verbs: str) -> list[Said]:
        return [one for one in self.said if one.verb in verbs]


def opinions(capture: Path) -> list[Opinion]:
    """One for each connection with a mail port, in the order of tcp.stream."""
    found: dict[int, Opinion] = {}
    sender: dict[int, tuple[Opinion, bool]] = {}  # by frame: whose, and is it the client's?
    for packet in packets(capture, FIELDS):
        one = {name: values[0] for name, values in packet.items() if values}
        source = _endpoint(one, "src")
        destination = _endpoint(one, "dst")
        stream = int(one["tcp.stream"])
        if stream not in found:
            if not MAIL_PORTS & {source[1], destination[1]}:
                continue
            from_client = _from_client(int(one["tcp.flags"], 16), destination[1])
            ends = (source, destination) if from_client else (destination, source)
            found[stream] = Opinion(stream, *ends)
        opinion = found[stream]
        opinion.established = int(one["tcp.completeness"]) & HANDSHAKE_DONE == HANDSHAKE_DONE
        by_client = source == opinion.client
        sender[int(one["frame.number"])] = opinion, by_client
        if not any(packet[name] for name in RESENT):
            if by_client:
                opinion.client_bytes += int(one["tcp.len"])
            else:
                opinion.server_bytes += int(one["tcp.len"])
        opinion.frames.add(int(one["frame.number"]))
        _take_tls(opinion, packet)
    for frame, tree in smtp_trees(capture):
        if frame in sender:
            opinion, by_client = sender[frame]
            opinion.said += _client_said(frame, tree) if by_client else _server_said(frame, tree)
    for opinion in found.values():
        _give_replies(opinion.said)
    return list(found.values())


def _endpoint(packet: dict[str, str], side: str) -> Endpoint:
    ip = packet.get(f"ip.{side}") or packet[f"ipv6.{side}"]
    return str(ipaddress.ip_address(ip)), int(packet[f"tcp.{side}port"])


def _from_client(flags: int, destination_port: int) -> bool:
    if flags & SYN_AND_ACK == SYN_ONLY:
        return True
    return flags & SYN_AND_ACK != SYN_AND_ACK and destination_port in MAIL_PORTS


def _take_tls(opinion: Opinion, packet: dict[str, list[str]]) -> None:
    lengths, types = packet["tls.record.length"], packet["tls.handshake.type"]
    if not lengths:
        return
    tls = opinion.tls = opinion.tls or TlsOpinion()
    tls.bytes_in_records += sum(int(length) + RECORD_HEADER_BYTES for length in lengths)
    if CLIENT_HELLO in types:
        tls.client_hello = True
        tls.sni = _first(packet["tls.handshake.extensions_server_name"])
        tls.alpn = _first(packet["tls.handshake.extensions_alpn_str"])
        tls.ja4 = _first(packet.get("tls.handshake.ja4", []))
    elif SERVER_HELLO in types:
        chosen = packet["tls.handshake.extensions.supported_version"] or packet["tls.handshake.version"]
        tls.version = int(chosen[0], 16)
        tls.cipher = int(packet["tls.handshake.ciphersuite"][0], 16)


def _first(values: Sequence[_T]) -> _T | None:
    return values[0] if values else None


def _client_said(frame: int, tree: Node) -> list[Said]:
    said = []
    for name, value in tree:
        if name == Sent.COMMAND:
            said.append(Said(frame, Sent.COMMAND, value.rstrip("\r\n")))
        elif name == Sent.END_OF_DATA:
            said.append(Said(frame, Sent.END_OF_DATA, message_bytes=_message_bytes(tree)))
    return said or [Said(frame, Sent.OTHER)]


def _message_bytes(tree: Node) -> int | None:
    whole = [value for name, value in tree if name == "smtp.data.fragments"]
    length = dict(whole[0]).get("smtp.data.reassembled.length") if len(whole) == 1 else None
    return int(length) if length else None


def _server_said(frame: int, tree: Node) -> list[Said]:
    replies = []
    for name, value in tree:
        if name == f"{Sent.REPLY}_tree":
            codes = [int(each) for key, each in value if key == "smtp.response.code"]
            lines = tuple(each for key, each in value if key == "smtp.rsp.parameter")
            replies.append(Said(frame, Sent.REPLY, code=_first(codes), lines=lines))
    return replies


def _give_replies(said: list[Said]) -> None:
    """Runs of the client's and of the server's by turns; those of equal length belong together."""
    asked: list[Said] = []
    answers: list[Said] = []
    challenged: Said | None = None  # the AUTH that was asked for another line
    for one in [*said, None]:
        if one and one.sent is Sent.REPLY:
            answers.append(one)
            continue
        if answers:
            answers = _joined(_without_goodbye(answers, len(asked)), len(asked))
            if len(asked) == len(answers):
                for question, answer in zip(asked, answers, strict=True):
                    question.reply = answer
            if challenged and len(asked) == 1:
                challenged.reply = asked[0].reply
            if answers[-1].code != AUTH_CONTINUES:
                challenged = None
            elif challenged is None and asked:
                challenged = asked[-1]
            asked, answers = [], []
        if one and (challenged or one.sent is not Sent.OTHER):
            asked.append(one)


def _without_goodbye(answers: list[Said], asked: int) -> list[Said]:
    """A server may say 421 at any moment, unasked."""
    more = len(answers) > max(asked, 1) and answers[-1].code == GOODBYE
    return answers[:-1] if more else answers


def _joined(answers: list[Said], asked: int) -> list[Said]:
    """One command has one reply: several of the same code are pieces of one that came in several packets."""
    if asked != 1 or len({answer.code for answer in answers}) > 1:
        return answers
    whole = answers[-1]
    whole.lines = tuple(line for answer in answers for line in answer.lines)
    return [whole]


def _chunk_bytes(bdat: Said) -> int | None:
    size = bdat.argument.split(" ")[0]
    return int(size) if size.isdecimal() else None


_PATH: Final = re.compile(
    r'(FROM|TO)(?::\s*|$)(?:<(?:@[^>:]*:)?(?P<inside>(?:"(?:\\.|[^"])*"|[^>"])*)>|<?(?P<bare>\S*))',
    re.IGNORECASE,
)


def path(command: Said) -> tuple[str, str] | None:
    """Of MAIL or RCPT: the address, and what follows it; None where it names none."""
    found = _PATH.match(command.argument)
    if found is None or found[1].upper() != {"MAIL": "FROM", "RCPT": "TO"}[command.verb]:
        return None
    address = found["inside"] if found["inside"] is not None else found["bare"]
    return address, command.argument[found.end() :].strip()
