"""Segments -> what each reach model finds of their sessions, in words."""

from collections.abc import Iterable
from typing import Final

from monitor.greylisters import TlsEnds, models
from monitor.sessions.direction import OurAddresses
from monitor.sessions.record import GreylisterReach, SessionRecord
from monitor.sessions.site import Site
from monitor.sessions.table import SessionTable
from probes.segment import Segment
from tests.monitor.sessions.wire import Wire
from tests.segments import PORTS

GREETING: Final = """
S: 220 mx.example ESMTP
C: EHLO client.example
S: 250-mx.example
S: 250 STARTTLS
"""
MAIL: Final = "C: MAIL FROM:<a@client.example>\nS: 250 ok\n"
RCPT: Final = "C: RCPT TO:<b@example.test>\nS: 250 ok\n"
QUIT: Final = "C: QUIT\nS: 221 bye\n"
STARTTLS: Final = "C: STARTTLS\nS: 220 go ahead\n"


def in_words(found: GreylisterReach) -> str:
    """`decided`, `bypassed by starttls`."""
    return found.reach.value if found.by is None else f"{found.reach.value} by {found.by.value}"


def records_under(tls_ends: TlsEnds, segments: Iterable[Segment]) -> list[SessionRecord]:
    """The records at a site where TLS ends there; of a capture that ends with the last segment."""
    records: list[SessionRecord] = []
    table = SessionTable(PORTS, Site(OurAddresses(), models(tls_ends)), records.append)
    for segment in segments:
        table.segment(segment)
    table.close_all()
    return records


def seen_by(greylister: str, wire: Wire, tls_ends: TlsEnds = TlsEnds.SERVER) -> str:
    """What that program's model finds of the one session on the wire."""
    (record,) = records_under(tls_ends, wire.segments)
    return in_words(record.greylisters[greylister])


def said(transcript: str) -> Wire:
    """A whole connection with these lines."""
    return Wire().open().say(transcript).close()


def midstream(wire: Wire) -> Wire:
    """The same connection, of which the handshake was not captured."""
    joined = Wire()
    joined.segments = wire.segments[3:]
    return joined
