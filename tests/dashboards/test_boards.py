"""The boards as they are committed: equal to their source, complete, and laid out without holes."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Final

import pytest

from dashboards.__main__ import GENERATED, differences, files, write
from dashboards.board import GRID_COLUMNS, TAG, Board, Line, Section
from dashboards.boards import all_boards
from dashboards.panels import Query, figure, lines, rows
from monitor.metrics.families import TLS_TAP_ENABLED

UIDS: Final = {
    "smtp-horizon-visibility",
    "smtp-horizon-reach",
    "smtp-horizon-tls",
    "smtp-horizon-inside",
    "smtp-horizon-security",
    "smtp-horizon-health",
}
"""Bookmarks and links hold them: one may come, none may change."""

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

Model = dict[str, Any]

BOARDS: Final[dict[str, Model]] = {board.uid: json.loads(board.json()) for board in all_boards()}

each_board = pytest.mark.parametrize("uid", sorted(BOARDS))


def _data_panels(uid: str) -> Iterator[Model]:
    return (panel for panel in BOARDS[uid]["panels"] if panel["type"] not in {"row", "text"})


def _one(title: str = "a title") -> Any:  # the SDK's panel
    return figure(title, "a description", Query("vector(1)", "one"), unit="short")


def _board(*lines_of_it: Line) -> Model:
    board = Board("uid", "title", "question", "now-1d", (Section("heading", lines_of_it),))
    return json.loads(board.json())  # type: ignore[no-any-return]


def test_generated_files_are_as_their_source_makes_them() -> None:
    assert differences(GENERATED, files()) == []


def test_the_same_source_makes_the_same_text_in_every_process() -> None:
    program = (
        "from dashboards.boards import all_boards; print(''.join(b.json() for b in all_boards()), end='')"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert elsewhere.stdout == "".join(board.json() for board in all_boards())


def test_keys_are_sorted_so_that_a_change_is_a_small_difference() -> None:
    for board in all_boards():
        text = board.json()
        assert text == json.dumps(json.loads(text), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def test_a_check_names_what_differs_what_is_missing_and_what_is_left_over(tmp_path: Path) -> None:
    wanted = {"boards/changed.json": "new", "boards/missing.json": "text", "boards/same.json": "same"}
    write(tmp_path, wanted)
    (tmp_path / "boards/changed.json").write_text("old")
    (tmp_path / "boards/missing.json").unlink()
    (tmp_path / "left_over.yml").write_text("")
    assert differences(tmp_path, wanted) == [
        "left_over.yml: nothing makes this file",
        "boards/changed.json: differs from its source",
        "boards/missing.json: missing",
    ]


def test_writing_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "of_somebody_else.yml").write_text("kept")
    write(tmp_path, {"boards/a.json": "text"})
    assert (tmp_path / "of_somebody_else.yml").read_text() == "kept"


def test_uids_are_those_that_bookmarks_hold() -> None:
    assert set(BOARDS) == UIDS


@each_board
def test_ids_are_unique(uid: str) -> None:
    seen = Counter(panel["id"] for panel in BOARDS[uid]["panels"])
    assert seen.most_common(1)[0][1] == 1


@each_board
def test_every_cell_of_the_grid_is_covered_once(uid: str) -> None:
    covered = Counter(
        (x, y)
        for panel in BOARDS[uid]["panels"]
        for place in (panel["gridPos"],)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    height = 1 + max(y for _, y in covered)
    assert covered == Counter((x, y) for x in range(GRID_COLUMNS) for y in range(height))


@each_board
def test_every_panel_says_what_it_shows_in_what_unit_and_asks_the_chosen_datasource(uid: str) -> None:
    for panel in BOARDS[uid]["panels"]:
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["description"].endswith(".")
    for panel in _data_panels(uid):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        assert panel["datasource"] == DATASOURCE, panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == DATASOURCE, panel["title"]


@each_board
def test_a_panel_that_asks_of_a_tap_says_so_where_none_runs(uid: str) -> None:
    for panel in _data_panels(uid):
        if any(TLS_TAP_ENABLED.name in target["expr"] for target in panel["targets"]):
            assert panel["fieldConfig"]["defaults"]["noValue"].startswith("no tap runs"), panel["title"]


def test_every_panel_on_what_is_inside_tls_asks_only_where_a_tap_runs() -> None:
    in_the_strip = 4
    for panel in list(_data_panels("smtp-horizon-inside"))[in_the_strip:]:
        for target in panel["targets"]:
            assert TLS_TAP_ENABLED.name in target["expr"], panel["title"]


@each_board
def test_queries_of_a_panel_have_letters_and_names_of_their_own(uid: str) -> None:
    for panel in _data_panels(uid):
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == list(ascii_uppercase[: len(letters)]), panel["title"]
        assert letters
        names = [target["legendFormat"] for target in panel["targets"]]
        assert len(set(names)) == len(names), panel["title"]


@each_board
def test_every_number_is_the_last_of_its_series(uid: str) -> None:
    for panel in _data_panels(uid):
        if panel["type"] in {"stat", "bargauge"}:
            assert panel["options"]["reduceOptions"]["calcs"] == ["lastNotNull"], panel["title"]
        if panel["type"] == "timeseries":
            assert panel["options"]["legend"]["showLegend"], panel["title"]


@each_board
def test_what_an_override_names_is_a_query_or_a_value_of_a_label(uid: str) -> None:
    for panel in _data_panels(uid):
        legends = {target["legendFormat"] for target in panel["targets"]}
        has_labels = any("{{" in legend for legend in legends)
        for override in panel["fieldConfig"]["overrides"]:
            name = override["matcher"]["options"]
            assert has_labels or name in legends or panel["type"] == "table", f"{panel['title']}: {name}"


@each_board
def test_thresholds_rise(uid: str) -> None:
    for panel in _data_panels(uid):
        first, *others = (step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"])
        assert first is None, panel["title"]
        assert all(lower < upper for lower, upper in pairwise(others)), panel["title"]


@each_board
def test_a_board_links_to_the_others_and_takes_time_and_server_along(uid: str) -> None:
    (link,) = BOARDS[uid]["links"]
    assert link["type"] == "dashboards"
    assert link["includeVars"]
    assert link["keepTime"]
    assert link["tags"] == [TAG]
    assert all(set(link["tags"]) <= set(other["tags"]) for other in BOARDS.values())


@each_board
def test_the_error_bar_stands_on_top(uid: str) -> None:
    on_top = [panel["title"] for panel in BOARDS[uid]["panels"] if panel["gridPos"]["y"] == 0]
    assert on_top == ["Capture", "Packets lost", "Share of packets lost", "Sessions unknown"]


@each_board
def test_a_fixed_choice_of_servers_is_left_to_the_reader(uid: str) -> None:
    variables = {variable["name"]: variable for variable in BOARDS[uid]["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    instance = variables["instance"]
    assert instance["multi"]
    assert instance["includeAll"]
    assert not instance.get("allValue"), "process_ metrics of other programs would come along"


def test_a_line_that_leaves_a_hole_is_an_error() -> None:
    with pytest.raises(ValueError, match="a title: 23 columns wide, not 24"):
        Line(5, ((23, _one()),))


def test_lines_and_headings_stand_below_one_another() -> None:
    board = _board(Line(5, ((12, _one()), (12, _one()))), Line(3, ((24, _one()),)))
    places = [(p["gridPos"]["x"], p["gridPos"]["y"], p["gridPos"]["h"]) for p in board["panels"]]
    assert places == [(0, 0, 1), (0, 1, 5), (12, 1, 5), (0, 6, 3)]


def test_an_error_band_is_filled_down_to_the_other_series() -> None:
    band = Query("vector(2)", "upper", band_down_to="lower")
    panel = lines("t", "d", Query("vector(1)", "lower"), band, unit="short")
    (override,) = _board(Line(5, ((24, panel),)))["panels"][1]["fieldConfig"]["overrides"]
    assert override["matcher"] == {"id": "byName", "options": "upper"}
    assert {"id": "custom.fillBelowTo", "value": "lower"} in override["properties"]


@pytest.mark.parametrize(
    ("names", "columns"), [(("First",), ["Value"]), (("First", "Second"), ["Value #A", "Value #B"])]
)
def test_columns_of_a_table_are_named_as_grafana_names_their_values(
    names: tuple[str, ...], columns: list[str]
) -> None:
    panel = rows("t", "d", *(Query("x", name) for name in names), keys=("port",), unit="short")
    organized = _board(Line(5, ((24, panel),)))["panels"][1]["transformations"][1]["options"]
    assert organized["renameByName"] == {"port": "Port", **dict(zip(columns, names, strict=True))}


def test_an_empty_cell_of_a_table_has_words_of_its_own_where_it_is_told_so() -> None:
    queries = Query("x", "X"), Query("y", "Y")
    panel = rows("t", "d", *queries, keys=("port",), unit="short", no_value="nothing", no_cell="–")
    drawn = _board(Line(5, ((24, panel),)))["panels"][1]["fieldConfig"]
    assert drawn["defaults"]["noValue"] == "nothing"
    assert {
        override["matcher"]["options"]: change["value"]
        for override in drawn["overrides"]
        for change in override["properties"]
        if change["id"] == "noValue"
    } == {"X": "–", "Y": "–"}
