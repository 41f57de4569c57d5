"""recordio (ucspi-tcp): copies both directions of the stream to a log, line by line.

It decides nothing: `decided` says that the envelope stands in its log to be read. From the first byte of TLS
on the log is ciphertext split at every line feed; the record's `opaque_from` has that byte. Under UCSPI-TLS
it races with the TLS program for the socket, and 78 of 200 sessions broke.

Source: measured, 200 STARTTLS sessions each way; docs/greylisters.md.
"""

from typing import Final

from monitor.greylisters.placement import TlsEnds
from monitor.greylisters.watcher import StreamWatcher, by_tls
from monitor.sessions.reach import Ending
from monitor.sessions.record import By, Envelope, GreylisterReach, Reach

_FOUND: Final = {
    Envelope.VISIBLE: GreylisterReach(Reach.DECIDED),
    Envelope.PARTIAL: GreylisterReach(Reach.DECIDED),
    Envelope.NONE: GreylisterReach(Reach.NO_ENVELOPE),
    Envelope.UNKNOWN: GreylisterReach(Reach.UNKNOWN),
}


class Recordio(StreamWatcher):
    name = "recordio"
    results = frozenset(_FOUND.values()) | {
        GreylisterReach(Reach.BLIND, By.STARTTLS),
        GreylisterReach(Reach.BLIND, By.IMPLICIT_TLS),
        GreylisterReach(Reach.STALLED, By.STARTTLS),
    }

    def ended(self, ending: Ending) -> GreylisterReach:
        if ending.envelope is not Envelope.HIDDEN:
            return _FOUND[ending.envelope]
        if self.tls_ends is TlsEnds.PROXY:
            return GreylisterReach(Reach.DECIDED)
        by = by_tls(ending)
        if by is By.STARTTLS and self.tls_ends is TlsEnds.UCSPI_TLS:
            return GreylisterReach(Reach.STALLED, by)
        return GreylisterReach(Reach.BLIND, by)
