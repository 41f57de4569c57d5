"""Capture files -> segments -> records, for tests that stand between the two ends."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from monitor.greylisters import TlsEnds, models
from monitor.sessions.direction import OurAddresses
from monitor.sessions.record import SessionRecord
from monitor.sessions.site import Site
from monitor.sessions.table import Limits, SessionTable
from probes.pcap.files import CaptureFilesProbe
from probes.segment import Segment
from tests.capture_truth import CAPTURES

PORTS: Final = frozenset((25, 465, 587))
SITE: Final = Site(OurAddresses(), models(TlsEnds.SERVER))


def capture_path(name: str) -> Path:
    """The capture of that name, compressed or not."""
    plain = CAPTURES / f"{name}.pcap"
    return plain if plain.exists() else plain.with_suffix(".pcap.zst")


def segments_of(name: str) -> list[Segment]:
    """All segments of a capture."""
    probe = CaptureFilesProbe([str(capture_path(name))], PORTS)
    return [segment for batch in probe.batches() for segment in batch]


def frozen_records(segments: Iterable[Segment], limits: Limits | None = None) -> list[SessionRecord]:
    """The records of a capture that ends with the last segment."""
    records: list[SessionRecord] = []
    table = SessionTable(PORTS, SITE, records.append, limits)
    for segment in segments:
        table.segment(segment)
    table.close_all()
    return records


def records_of(segments: Iterable[Segment], limits: Limits | None = None) -> list[dict[str, Any]]:
    """The same, as they stand in JSON."""
    return [json.loads(msgspec.json.encode(record)) for record in frozen_records(segments, limits)]
