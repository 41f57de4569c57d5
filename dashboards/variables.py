"""What the reader of a board chooses at its top, and the matchers that follow from it.

No board knows a datasource or a server by name: both are variables.
"""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.dashboard import VariableOption, VariableRefresh, VariableSort

from dashboards.promql import Match, select
from monitor.metrics.families import BUILD_INFO, SESSIONS, Family

DATASOURCE: Final = DataSourceRef("prometheus", "${datasource}")

SCOPE: Final = 'instance=~"$instance"'
"""Stands in every selector of every board."""

DIRECTION_SCOPE: Final = 'direction=~"$direction"'
"""Only for families with a direction."""

_ALL: Final = VariableOption(selected=True, text="All", value="$__all")


def datasource() -> DatasourceVariable:
    return DatasourceVariable("datasource").label("Data source").type("prometheus")


def instance() -> QueryVariable:
    """Without a value of its own for All: Grafana then lists the instances that it found, so that `process_`
    and `scrape_` metrics of other programs stay out.
    """
    return _choice("instance", "Server", f"label_values({BUILD_INFO.name}, instance)")


def direction() -> QueryVariable:
    selector = f"{SESSIONS.name}{{{SCOPE}}}"
    return _choice("direction", "Direction", f"label_values({selector}, direction)")


def _choice(name: str, label: str, query: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": name, "qryType": 1})
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(_ALL)
    )


def of(family: Family, *, suffix: str = "", **labels: Match) -> str:
    """A selector of the chosen servers: `smtp_auth_total{instance=~"$instance",port="25"}`."""
    return select(family, suffix=suffix, scope=SCOPE, **labels)


def of_directions(family: Family, **labels: Match) -> str:
    """The same, of the chosen directions as well."""
    return select(family, suffix="", scope=f"{SCOPE},{DIRECTION_SCOPE}", **labels)
