"""All metrics of one moment, as bytes: `watch` takes them, and the process that serves them renders them.

To take them costs the capture a millisecond. To render them costs several, for each format anew.
"""

from collections.abc import Iterable

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from monitor.metrics.collector import MonitorCollector, registry_of


class _Sample(msgspec.Struct, array_like=True):
    name: str
    labels: dict[str, str]
    value: float


class _Family(msgspec.Struct, array_like=True):
    name: str
    type: str
    documentation: str
    samples: list[_Sample]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[_Family])


class Source:
    """Where `watch` takes snapshots of itself."""

    def __init__(self, collector: MonitorCollector) -> None:
        self._registry = registry_of(collector, with_process=True)

    def take(self) -> bytes:
        return _ENCODER.encode(
            [
                _Family(
                    metric.name,
                    metric.type,
                    metric.documentation,
                    [_Sample(sample.name, sample.labels, sample.value) for sample in metric.samples],
                )
                for metric in self._registry.collect()
            ]
        )


class _Taken(Collector):
    def __init__(self, families: list[_Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.documentation, family.type)
            for sample in family.samples:
                metric.add_sample(sample.name, sample.labels, sample.value)
            yield metric


def registry_in(snapshot: bytes) -> CollectorRegistry:
    """What `Source.take` put in. Raises msgspec.DecodeError."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Taken(_DECODER.decode(snapshot)))
    return registry
