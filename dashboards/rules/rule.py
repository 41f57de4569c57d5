"""What a rule is: recording rules, alerts, and the groups that they stand in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

RUNBOOKS_URL: Final = "https://github.com/smtp-horizon/smtp-horizon/blob/main/dashboards/runbooks"


class Severity(StrEnum):
    """What an operator must do, and when. The mail itself flows in all three."""

    CRITICAL = "critical"
    """Look now: nothing is measured until somebody does, and what passes meanwhile is lost for good."""
    WARNING = "warning"
    """Look today: something broke, or numbers can't be trusted."""
    INFO = "info"
    """Know of it: it may be an attempt that did no harm. Nobody needs to be told at night."""


@dataclass(frozen=True, slots=True)
class Recording:
    """An expression under a name of its own: level:metric:operations."""

    record: str
    expression: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """As Prometheus' rule files have it."""
        document: dict[str, object] = {"record": self.record, "expr": self.expression}
        return document | ({"labels": dict(self.labels)} if self.labels else {})


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    expression: str
    hold: str
    """For how long it must be so before anybody is told; Prometheus' `for`."""
    severity: Severity
    summary: str
    """One line, with Go templates."""
    description: str

    def document(self) -> dict[str, object]:
        """As Prometheus' rule files have it."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.hold,
            "labels": {"severity": self.severity.value},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOKS_URL}/{self.name}.md",
            },
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other, so that a later one sees what an earlier one recorded."""

    name: str
    rules: Sequence[Recording | Alert]
    interval: str = "1m"

    def document(self) -> dict[str, object]:
        """As Prometheus' rule files have it."""
        rules = [rule.document() for rule in self.rules]
        return {"name": self.name, "interval": self.interval, "rules": rules}
