"""A small board without a fault, made with the SDK alone: what tests break on purpose."""

import json
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.dashboard import VariableRefresh

from monitor.metrics.families import BUILD_INFO, SESSIONS

UID: Final = "smtp-horizon-small"
TITLE: Final = "Sessions"
EXPRESSION: Final = f'sum by (port) (rate({SESSIONS.name}{{instance=~"$instance"}}[$__rate_interval]))'

_DATASOURCE: Final = DataSourceRef("prometheus", "${datasource}")


def small_board(expression: str = EXPRESSION) -> dict[str, Any]:
    """As Grafana would load it: one panel with one query, and the two variables that all our boards have."""
    target = prometheus.Dataquery().datasource(_DATASOURCE).ref_id("A").expr(expression).range()
    panel = (
        timeseries.Panel()
        .title(TITLE)
        .description("How many sessions end, by port.")
        .datasource(_DATASOURCE)
        .unit("short")
        .with_target(target)
    )
    instance = (
        build.QueryVariable("instance")
        .label("Server")
        .datasource(_DATASOURCE)
        .query(f"label_values({BUILD_INFO.name}, instance)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
    )
    board = (
        build.Dashboard("Small")
        .uid(UID)
        .readonly()
        .with_variable(build.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(instance)
        .with_panel(panel)
    )
    model: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    return model
