"""Panels in lines on Grafana's grid, with the variables and links that all boards have.

A line is full or it is an error: no holes, nothing overlaps.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    Panel,
    RowPanel,
)

from dashboards import variables

GRID_COLUMNS: Final = 24
"""https://grafana.com/docs/grafana/latest/visualizations/dashboards/build-dashboards/view-dashboard-json-model/"""

TAG: Final = "smtp-horizon"
"""What the boards find each other by."""


@dataclass(frozen=True, slots=True)
class Line:
    """Panels side by side."""

    height: int
    """In grid units of 30 pixels."""
    cells: tuple[tuple[int, Panel], ...]
    """Width in grid columns, and the panel. Together they fill the line; ValueError otherwise."""

    def __post_init__(self) -> None:
        width = sum(width for width, _ in self.cells)
        if width != GRID_COLUMNS:
            titles = ", ".join(panel.title or "" for _, panel in self.cells)
            raise ValueError(f"{titles}: {width} columns wide, not {GRID_COLUMNS}")


@dataclass(frozen=True, slots=True)
class Section:
    """Lines under a heading."""

    title: str
    """Empty: no heading."""
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Board:
    uid: str
    """Never changes: links and bookmarks hold it."""
    title: str
    question: str
    """That the board answers."""
    since: str
    """The time that it shows at first, as `now-7d`."""
    sections: tuple[Section, ...]
    by_direction: bool = False
    """Whether the reader may choose among inbound, outbound and internal."""

    def json(self) -> str:
        """With sorted keys and a line feed at the end, so that the same board is the same text."""
        return json.dumps(self._model(), cls=JSONEncoder, sort_keys=True, indent=2, ensure_ascii=False) + "\n"

    def _model(self) -> Any:
        board = (
            build.Dashboard(f"smtp-horizon / {self.title}")
            .uid(self.uid)
            .description(self.question)
            .tags([TAG])
            .time(self.since, "now")
            .timezone("browser")
            .refresh("1m")
            .readonly()
            .tooltip(DashboardCursorSync.CROSSHAIR)
            .link(_links())
            .with_variable(variables.datasource())
            .with_variable(variables.instance())
        )
        if self.by_direction:
            board = board.with_variable(variables.direction())
        model = board.build()
        model.panels = self._placed()
        return model

    def _placed(self) -> list[Panel | RowPanel]:
        placed: list[Panel | RowPanel] = []
        y = 0
        for section in self.sections:
            if section.title:
                place = GridPos(h=1, w=GRID_COLUMNS, x=0, y=y)
                placed.append(
                    RowPanel(title=section.title, grid_pos=place, id_val=len(placed) + 1, panels=[])
                )
                y += 1
            for line in section.lines:
                x = 0
                for width, panel in line.cells:
                    panel.id_val = len(placed) + 1
                    panel.grid_pos = GridPos(h=line.height, w=width, x=x, y=y)
                    placed.append(panel)
                    x += width
                y += line.height
        return placed


def _links() -> build.DashboardLink:
    """To the other boards, with the chosen time and servers."""
    return (
        build.DashboardLink("smtp-horizon")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
        .as_dropdown(False)
    )
