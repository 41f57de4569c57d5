"""Holds session records against tshark's opinions of the same connections: a named line for a difference."""

import functools
import ssl
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from tests.opinion.ask_tshark import cipher_names
from tests.opinion.opinion import Opinion, Said, path

Record = dict[str, Any]

VERSIONS: Final = {0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}


class Fact(NamedTuple):
    """One thing that both speak of."""

    name: str
    tshark: Any
    ours: Any


class Difference(NamedTuple):
    client: str
    """Address and port; together with the capture they name the connection."""
    fact: Fact

    def __str__(self) -> str:
        name, tshark, ours = self.fact
        return f"{self.client} {name}: tshark {tshark!r}, the record {ours!r}"

    @property
    def tshark_lacks_only(self) -> bool:
        """Whatever tshark has, the record has too, in the same order."""
        if not isinstance(self.fact.tshark, list):
            return not self.fact.tshark
        rest = iter(self.fact.ours)
        return all(any(item == candidate for candidate in rest) for item in self.fact.tshark)


class Pair(NamedTuple):
    """An opinion and a record of one connection."""

    client: str
    opinion: Opinion
    record: Record

    def differences(self) -> list[Difference]:
        return [Difference(self.client, fact) for fact in facts(*self[1:]) if fact.tshark != fact.ours]


def endpoint_name(endpoint: tuple[str, int]) -> str:
    """As the table of known differences has it."""
    return f"{endpoint[0]} {endpoint[1]}"


def paired(opinions: Sequence[Opinion], records: Sequence[Record]) -> tuple[list[Pair], list[str]]:
    """And a line for each connection that only one of the two has."""
    theirs = {(one.client, one.server): one for one in opinions if one.established}
    ours = {(_endpoint(one["client"]), _endpoint(one["server"])): one for one in records}
    complaints = [
        f"{key}: {'only tshark' if key in theirs else 'only we'} have it"
        for key in theirs.keys() ^ ours.keys()
    ]
    if len(ours) != len(records):
        complaints.append("several records of one pair of endpoints")
    both = sorted(theirs.keys() & ours.keys())
    return [Pair(endpoint_name(key[0]), theirs[key], ours[key]) for key in both], sorted(complaints)


def facts(opinion: Opinion, record: Record) -> Iterator[Fact]:
    """All that is compared of one connection."""
    yield Fact("bytes.client", opinion.client_bytes, record["bytes"]["client"])
    yield Fact("bytes.server", opinion.server_bytes, record["bytes"]["server"])
    yield from _clear_text(opinion, record)
    yield from _messages(opinion, record)
    yield from _tls(opinion, record)


def _clear_text(opinion: Opinion, record: Record) -> Iterator[Fact]:
    banner = opinion.banner
    yield Fact(
        "banner",
        banner and (banner.code, "\n".join(banner.lines)),
        record["banner"] and (record["banner"]["code"], record["banner"]["text"]),
    )
    hellos = opinion.commands("EHLO", "HELO", "LHLO")
    yield from _commands(
        "helo",
        [(one, (one.verb, one.argument)) for one in hellos],
        [((one["verb"], one["name"]), one["code"]) for one in record["helo"]],
    )
    starttls = opinion.commands("STARTTLS")
    codes = [one.reply_code for one in starttls]
    yield Fact("starttls.offered", opinion.offers_starttls, record["starttls"]["offered"])
    yield Fact("starttls.requested", len(starttls), record["starttls"]["requested"])
    if None not in codes:
        yield Fact("starttls.codes", codes, record["starttls"]["codes"])
    yield from _commands(
        "auth",
        [(one, one.argument.split(" ")[0].upper()) for one in opinion.commands("AUTH")],
        [(one["mechanism"], one["code"]) for one in record["auth"]],
    )
    yield from _commands(
        "mail",
        _with_paths(opinion.commands("MAIL")),
        [((one["mail_from"], one["mail_params"]), one["mail_code"]) for one in record["transactions"]],
    )
    recipients = [to for one in record["transactions"] for to in one["recipients"]]
    yield from _commands(
        "rcpt",
        _with_paths(opinion.commands("RCPT")),
        [((to["address"], to["params"]), to["code"]) for to in recipients],
    )


def _commands(
    name: str, theirs: list[tuple[Said, Any]], ours: list[tuple[Any, int | None]]
) -> Iterator[Fact]:
    """The commands; and, where they are the same, the codes that tshark's order of packets tells."""
    said, recorded = [value for _, value in theirs], [value for value, _ in ours]
    yield Fact(name, said, recorded)
    if said == recorded:
        known = [
            ((value, command.reply_code), (value, code))
            for (command, value), (_, code) in zip(theirs, ours, strict=True)
            if command.reply_code is not None
        ]
        yield Fact(f"{name} codes", [one for one, _ in known], [one for _, one in known])


def _with_paths(commands: Sequence[Said]) -> list[tuple[Said, tuple[str, dict[str, str | None]]]]:
    """Addresses and parameters; without commands that name no address, which are no transaction's."""
    found = []
    for one in commands:
        named = path(one)
        if named:
            names = (parameter.partition("=") for parameter in named[1].split())
            params = {name.upper(): value if equals else None for name, equals, value in names}
            found.append((one, (named[0], params)))
    return found


def _messages(opinion: Opinion, record: Record) -> Iterator[Fact]:
    theirs = opinion.messages
    ours = [one["data"] for one in record["transactions"] if one["data"]]
    yield Fact("data", [one.verb for one in theirs], [one["verb"] for one in ours])
    if len(theirs) == len(ours):
        for place, (message, data) in enumerate(zip(theirs, ours, strict=True)):
            if message.wire_bytes is not None:
                yield Fact(f"data[{place}].wire_bytes", message.wire_bytes, data["wire_bytes"])
            if message.code is not None:
                yield Fact(f"data[{place}].code", message.code, data["code"])


def _tls(opinion: Opinion, record: Record) -> Iterator[Fact]:
    said, ours = opinion.tls, record["tls"]
    yield Fact("bytes.encrypted", said.bytes_in_records if said else 0, record["bytes"]["encrypted"])
    hello = bool(said and said.client_hello)
    yield Fact("tls", hello, ours is not None)
    yield Fact("channel", _channel(opinion, hello=hello), record["channel"])
    if said is None or ours is None:
        return
    yield Fact("tls.version", said.version and VERSIONS[said.version], ours["version"])
    yield Fact("tls.cipher", said.cipher, openssl_numbers().get(ours["cipher"]))
    if (ours["cipher"] or "").startswith("TLS_"):  # of TLS 1.3, where OpenSSL has IANA's names
        yield Fact("tls.cipher name", cipher_names().get(said.cipher or 0), ours["cipher"])
    yield Fact("tls.sni", said.sni, ours["sni"])
    yield Fact("tls.alpn", said.alpn, ours["alpn"])
    if said.ja4 is not None:
        yield Fact("tls.ja4", said.ja4, ours["ja4"])


def _channel(opinion: Opinion, *, hello: bool) -> str:
    if not hello:
        return "cleartext"
    return "starttls" if opinion.commands("STARTTLS") else "implicit_tls"


@functools.cache
def openssl_numbers() -> dict[str, int]:
    """The cipher suites of this machine's OpenSSL by its names: neither tshark nor our own table says so."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return {str(cipher["name"]): cipher["id"] & 0xFFFF for cipher in context.get_ciphers()}


def _endpoint(end: dict[str, Any]) -> tuple[str, int]:
    return end["ip"], end["port"]
