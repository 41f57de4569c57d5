"""The counts behind a scrape: what `read` makes its report of, read back from the exposition text."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from monitor.metrics import families
from monitor.metrics.families import Family
from monitor.metrics.tally import Counts
from probes.probe import DropSite, PacketCounts, Verdict

_COUNTED: Final = (
    families.SESSIONS,
    families.STARTTLS,
    families.PACKETS,
    families.PACKETS_DROPPED,
    families.HANDSHAKES_INCOMPLETE,
    families.SESSIONS_OPEN,
)


@dataclass(frozen=True, slots=True)
class Scrape:
    counts: Counts
    """Sessions and STARTTLS; the rest is left at zero."""
    packets: PacketCounts
    handshakes_incomplete: int
    open_sessions: int


def read_exposition(text: str) -> Scrape:
    samples: dict[Family, Counter[tuple[str, ...]]] = {family: Counter() for family in _COUNTED}
    by_name = {family.name: family for family in _COUNTED}
    for parsed in text_string_to_metric_families(text):
        for sample in parsed.samples:
            if family := by_name.get(sample.name):
                labels = tuple(sample.labels[name] for name in family.label_names)
                samples[family][labels] = int(sample.value)
    counts = Counts()
    counts.sessions, counts.starttls = samples[families.SESSIONS], samples[families.STARTTLS]
    return Scrape(
        counts,
        PacketCounts(
            Counter({Verdict(labels[0]): count for labels, count in samples[families.PACKETS].items()}),
            Counter(
                {DropSite(labels[0]): count for labels, count in samples[families.PACKETS_DROPPED].items()}
            ),
        ),
        samples[families.HANDSHAKES_INCOMPLETE].total(),
        samples[families.SESSIONS_OPEN].total(),
    )
