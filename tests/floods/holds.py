"""What is promised in a flood: memory within a bound, ordinary sessions recorded as ever, no word lost."""

from typing import Final

from tests.floods.floods import ORDINARY, Flood
from tests.floods.reading import Outcome

# What the bounds of the table of sessions come to (monitor.sessions.table.Limits): so many connections, each
# with what it needs; so many handshakes; 64 MiB of traffic kept.
MOST_RESIDENT_BYTES: Final = 200_000_000
# What LISTED_ITEMS_LIMIT and LISTED_TEXT_LIMIT_CHARACTERS of monitor.sessions.ledger come to.
MOST_RECORD_BYTES: Final = 1_000_000


def faults(flood: Flood, size: int, outcome: Outcome) -> list[str]:
    """A line for each promise that is broken."""
    found = []
    if outcome.status:
        found.append(f"status {outcome.status}")
    right = [one for one in outcome.ordinary if one["envelope"] == "visible" and one["capture"]["complete"]]
    if len(right) != ORDINARY:
        found.append(f"{len(right)} of {ORDINARY} ordinary sessions right")
    expected = flood.records * size // flood.size if flood.records > 1 else flood.records
    if outcome.records != expected:
        found.append(f"{outcome.records} records of the flood, not {expected}")
    if outcome.peak_bytes > MOST_RESIDENT_BYTES:
        found.append(f"{outcome.peak_bytes} bytes resident")
    if outcome.longest_record_bytes > MOST_RECORD_BYTES:
        found.append(f"a record of {outcome.longest_record_bytes} bytes")
    return found
