"""One panel: queries in, a panel of Grafana's classic schema out.

Fills in what the SDK leaves unset: refIds, `reduceOptions.calcs`, legends, tooltips, format and kind of each
query. Ids and places are the board's (board.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Final, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, table, text, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from dashboards import colours
from dashboards.variables import DATASOURCE

SHARE: Final = "percentunit"
COUNT: Final = "locale"
"""With all digits: 2,034."""
PER_HOUR: Final = "suffix:/h"
SECONDS: Final = "s"
BYTES: Final = "bytes"
DURATION: Final = "dtdurations"
BYTES_PER_SECOND: Final = "Bps"
POINTS: Final = "suffix: points"
"""A difference of two shares, times a hundred."""

Step = tuple[float | None, str]
"""From which value on, and the colour; None is from the bottom."""

ALARM_ABOVE_ZERO: Final[tuple[Step, ...]] = ((None, colours.GOOD), (0.5, colours.BAD))
"""Half of one: `increase` extrapolates, and a single event may come out as 0.9."""
NOTICE_ABOVE_ZERO: Final[tuple[Step, ...]] = ((None, colours.GOOD), (0.5, colours.NOTICE))

_NARROWEST_COLUMN_PIXELS: Final = 90
"""Chosen for a heading and six digits; Grafana's 150 make tables scroll that would have room."""

NOTHING_COUNTED: Final = "nothing counted"


@dataclass(frozen=True, slots=True)
class Query:
    expression: str
    name: str
    """Of the series, the bar or the table's column; may hold labels, as `{{port}}`."""
    colour: str | None = None
    unit: str | None = None
    """Where it is not the panel's."""
    dashed: bool = False
    band_down_to: str | None = None
    """The name of the series down to which the space is filled: an error band."""


def figure(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    decimals: int | None = None,
    steps: Sequence[Step] = (),
    words: Mapping[str, tuple[str, str]] | None = None,
    no_value: str = NOTHING_COUNTED,
    background: bool = False,
) -> Panel:
    """One number, or a few, as of the end of the chosen time.

    Args:
        words: by value, what stands in its place, and the colour.
    """
    panel = (
        stat.Panel()
        .reduce_options(_last())
        .graph_mode(options.BigValueGraphMode.NONE)
        .color_mode(
            options.BigValueColorMode.BACKGROUND_SOLID if background else options.BigValueColorMode.VALUE
        )
        .justify_mode(options.BigValueJustifyMode.CENTER)
        .orientation(options.VizOrientation.HORIZONTAL)
        .text_mode(
            options.BigValueTextMode.VALUE_AND_NAME if len(queries) > 1 else options.BigValueTextMode.VALUE
        )
        .color_scheme(build.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(steps or ((None, queries[0].colour or colours.VISIBLE),)))
        .no_value(no_value)
    )
    if len(queries) > 1:
        panel = panel.text(common.VizTextDisplayOptions().title_size(18).value_size(30))
    if words:
        mapped = {
            value: ValueMappingResult(text=word, color=colour, index=at)
            for at, (value, (word, colour)) in enumerate(sorted(words.items()))
        }
        panel = panel.mappings([ValueMap(options=mapped)])
    frame = _Frame(title, description, unit, decimals)
    return _finished(panel, queries, frame, instant=True)


def bars(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    decimals: int | None = None,
    colour: str = colours.VISIBLE,
    colours_by_name: Mapping[str, str] | None = None,
    top: float | None = None,
    no_value: str = NOTHING_COUNTED,
) -> Panel:
    """One horizontal bar for each series, as of the end of the chosen time.

    Args:
        colour: of bars that neither their query nor `colours_by_name` gives one.
        top: what a full bar is; the largest value if None.
    """
    panel = (
        bargauge.Panel()
        .reduce_options(_last())
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .value_mode(options.BarGaugeValueMode.TEXT)
        .name_placement(options.BarGaugeNamePlacement.LEFT)
        .text(common.VizTextDisplayOptions().title_size(11).value_size(16))
        .sizing(options.BarGaugeSizing.AUTO)
        .show_unfilled(True)
        .color_scheme(build.FieldColor().mode(FieldColorModeId.FIXED).fixed_color(colour))
        .thresholds(_thresholds(((None, colour),)))
        .min(0)
        .no_value(no_value)
    )
    if top is not None:
        panel = panel.max(top)
    panel = _coloured(panel, colours_by_name)
    frame = _Frame(title, description, unit, decimals)
    return _finished(panel, queries, frame, instant=True)


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    decimals: int | None = None,
    colours_by_name: Mapping[str, str] | None = None,
    stacked: bool = False,
    events: bool = False,
    top: float | None = None,
    legend_right: bool = False,
    no_value: str = NOTHING_COUNTED,
) -> Panel:
    """Series over time, from zero.

    Args:
        stacked: areas on top of each other.
        events: bars on top of each other, for what is rare.
        top: the end of the axis; the largest value if None.
    """
    stacking = options.StackingMode.NORMAL if stacked or events else options.StackingMode.NONE
    panel = (
        timeseries.Panel()
        .draw_style(options.GraphDrawStyle.BARS if events else options.GraphDrawStyle.LINE)
        .line_interpolation(options.LineInterpolation.LINEAR)
        .line_width(0 if stacked or events else 2)
        .fill_opacity(80 if stacked or events else 0)
        .show_points(options.VisibilityMode.NEVER)
        .stacking(common.StackingConfig().mode(stacking).group("A"))
        .span_nulls(False)
        .axis_soft_min(0)
        .legend(_legend(right=legend_right))
        .tooltip(
            common.VizTooltipOptions()
            .mode(options.TooltipDisplayMode.MULTI)
            .sort(options.SortOrder.DESCENDING)
        )
        .color_scheme(build.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .thresholds(_thresholds(((None, colours.VISIBLE),)))
        .min(0)
        .no_value(no_value)
    )
    if top is not None:
        panel = panel.max(top)
    panel = _coloured(panel, colours_by_name)
    for query in queries:
        if query.dashed:
            panel = panel.override_by_name(
                query.name,
                [
                    DynamicConfigValue("custom.lineStyle", {"dash": [6, 6], "fill": "dash"}),
                    DynamicConfigValue("custom.lineWidth", 1),
                ],
            )
        if query.band_down_to is not None:
            panel = panel.override_by_name(
                query.name,
                [
                    DynamicConfigValue("custom.fillBelowTo", query.band_down_to),
                    DynamicConfigValue("custom.fillOpacity", 25),
                    DynamicConfigValue("custom.lineWidth", 0),
                ],
            )
    frame = _Frame(title, description, unit, decimals)
    return _finished(panel, queries, frame, instant=False)


def rows(
    title: str,
    description: str,
    *queries: Query,
    keys: Sequence[str],
    unit: str,
    decimals: int | None = None,
    sort_by: str | None = None,
    no_value: str = "–",
    no_cell: str | None = None,
) -> Panel:
    """A table: a row for each value of the labels `keys`, a column for each query.

    Args:
        no_cell: what stands where a query has nothing for a row that others have; `no_value` if None.
    """
    columns = {key: key.replace("_", " ").capitalize() for key in keys}
    single = len(queries) == 1
    columns |= {
        "Value" if single else f"Value #{letter}": query.name
        for letter, query in zip(ascii_uppercase, queries, strict=False)
    }
    panel = (
        table.Panel()
        .show_header(True)
        .cell_height(options.TableCellHeight.SM)
        .min_width(_NARROWEST_COLUMN_PIXELS)
        .color_scheme(build.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(((None, colours.VISIBLE),)))
        .no_value(no_value)
        .with_transformation(DataTransformerConfig("merge", options={}))
        .with_transformation(
            DataTransformerConfig(
                "organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: at for at, name in enumerate(columns)},
                    "renameByName": columns,
                },
            )
        )
    )
    # Or a port would be taken for a number, and shown as 2500%.
    for key in keys:
        panel = panel.override_by_name(columns[key], [DynamicConfigValue("unit", "string")])
    if sort_by is not None:
        panel = panel.sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])
    for query in queries:
        if query.colour is not None:
            panel = panel.override_by_name(
                query.name,
                [
                    DynamicConfigValue(
                        "custom.cellOptions", {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
                    ),
                    DynamicConfigValue("min", 0),
                    DynamicConfigValue("max", 1),
                ],
            )
        if no_cell is not None:
            panel = panel.override_by_name(query.name, [DynamicConfigValue("noValue", no_cell)])
    frame = _Frame(title, description, unit, decimals)
    return _finished(
        panel,
        queries,
        frame,
        instant=True,
        as_table=True,
    )


def note(title: str, description: str, markdown: str) -> Panel:
    """Text; the one panel without a query."""
    panel = text.Panel().title(title).description(description).mode(TextMode.MARKDOWN).content(markdown)
    return panel.build()


@dataclass(frozen=True, slots=True)
class _Frame:
    """What every panel says of itself."""

    title: str
    description: str
    unit: str
    decimals: int | None


class _Builder(Protocol):
    """What the builders of all panels have in common."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: options.DataSourceRef) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def decimals(self, decimals: float) -> Self: ...
    def with_target(self, target: Any) -> Self: ...
    def override_by_name(self, name: str, properties: list[DynamicConfigValue]) -> Self: ...
    def build(self) -> Panel: ...


_B = TypeVar("_B", bound=_Builder)


def _finished(
    panel: _Builder,
    queries: Sequence[Query],
    frame: _Frame,
    *,
    instant: bool,
    as_table: bool = False,
) -> Panel:
    panel = panel.title(frame.title).description(frame.description).datasource(DATASOURCE).unit(frame.unit)
    if frame.decimals is not None:
        panel = panel.decimals(frame.decimals)
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        target = (
            prometheus.Dataquery()
            .datasource(DATASOURCE)
            .ref_id(letter)
            .expr(query.expression)
            .legend_format(query.name)
            .format(PromQueryFormat.TABLE if as_table else PromQueryFormat.TIME_SERIES)
        )
        panel = panel.with_target(target.instant() if instant else target.range())
        own = [DynamicConfigValue("unit", query.unit)] if query.unit is not None else []
        if query.unit == COUNT:
            own.append(DynamicConfigValue("decimals", 0))  # `increase` extrapolates to 4,968.6 sessions
        if query.colour is not None:
            own.append(DynamicConfigValue("color", _fixed(query.colour)))
        if own:
            panel = panel.override_by_name(query.name, own)
    return panel.build()


def _coloured(panel: _B, colours_by_name: Mapping[str, str] | None) -> _B:
    for name, colour in (colours_by_name or {}).items():
        panel = panel.override_by_name(name, [DynamicConfigValue("color", _fixed(colour))])
    return panel


def _fixed(colour: str) -> dict[str, str]:
    return {"fixedColor": colour, "mode": FieldColorModeId.FIXED.value}


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)


def _legend(*, right: bool) -> common.VizLegendOptions:
    placement = options.LegendPlacement.RIGHT if right else options.LegendPlacement.BOTTOM
    return (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(options.LegendDisplayMode.TABLE if right else options.LegendDisplayMode.LIST)
        .placement(placement)
        .calcs(["lastNotNull"] if right else [])
    )


def _thresholds(steps: Sequence[Step]) -> build.ThresholdsConfig:
    return (
        build.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=colour) for value, colour in steps])
    )
