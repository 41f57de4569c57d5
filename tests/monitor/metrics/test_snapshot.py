"""What is taken in one process and rendered in another is what it was."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from monitor.metrics.collector import MonitorCollector
from monitor.metrics.negotiation import FORMATS
from monitor.metrics.snapshot import Source, registry_in
from monitor.metrics.tally import Tally
from monitor.sessions.record import SessionRecord


def test_a_snapshot_holds_every_sample_and_renders_as_its_source_does(
    collector: MonitorCollector, tally: Tally, make_record: Callable[..., SessionRecord]
) -> None:
    tally.count(make_record("starttls"))
    taken = registry_in(Source(collector).take())
    original = CollectorRegistry()
    original.register(collector)
    of_process = {metric.name for metric in taken.collect()} - {metric.name for metric in original.collect()}
    assert {"process_resident_memory_bytes", "process_cpu_seconds"} <= of_process
    alone = CollectorRegistry()
    alone.register(_Without(taken, of_process))
    for form in FORMATS:
        assert form.render(alone) == form.render(original)


class _Without(CollectorRegistry):
    def __init__(self, registry: CollectorRegistry, names: set[str]) -> None:
        self._all, self._names = registry, names

    def collect(self):  # type: ignore[no-untyped-def]
        return [metric for metric in self._all.collect() if metric.name not in self._names]


def test_a_sample_is_a_name_labels_and_a_value_and_nothing_that_a_snapshot_would_lose(
    collector: MonitorCollector,
) -> None:
    for metric in collector.collect():
        for sample in metric.samples:
            assert sample == Sample(sample.name, sample.labels, sample.value)
