"""Figures show the stored numbers: no rounding, no filling, no mixing; and scales hold."""

from __future__ import annotations

import math
import re
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import result, several

from raycl.report import figures as f
from raycl.report import scales
from raycl.report.boards import boards
from raycl.report.charts import bars, line_chart, scatter, stack
from raycl.report.leaderboard import Cell


def only(results):
    (board,) = boards(results)
    return board


def test_heat_maps_hold_the_mean_of_the_stored_matrices():
    runs = [result(seed=s, tasks=4) for s in range(3)]
    board = only(runs)
    ((setting, name),) = f.named(board)
    seen, union = f.heat_map(board, setting, name).matrices
    for i in range(4):
        for j in range(4):
            for shown, what in ((seen.values[i][j], "r_seen"), (union.values[i + 1][j], "r_union")):
                stored = [run[what][i][j] for run in runs]
                if None in stored:
                    assert shown is None
                else:
                    assert shown == pytest.approx(statistics.fmean(stored), abs=1e-12)
    assert union.values[0] == pytest.approx(
        [statistics.fmean(r["zero_shot"][j] for r in runs) for j in range(4)]
    )


def test_an_entry_that_one_run_lacks_is_null():
    runs = [result(seed=s) for s in range(2)]
    runs[1]["r_seen"][2][1] = None
    board = only(runs)
    ((setting, name),) = f.named(board)
    assert f.heat_map(board, setting, name).matrices[0].values[2][1] is None


def test_lines_are_the_stage_accuracies():
    runs = [result(seed=s, tasks=5) for s in range(2)]
    (line,) = f.accuracy_over_tasks(only(runs)).lines
    for i, cell in enumerate(line.cells):
        stored = [run["metrics"]["stage_pooled"][i] for run in runs]
        assert cell.mean == pytest.approx(statistics.fmean(stored))
        assert cell.sd == pytest.approx(statistics.stdev(stored))


def test_the_line_on_all_classes_starts_at_zero_shot_and_needs_whole_rows():
    whole, half = result("slda"), result("ncm", unseen=False)
    (line,) = f.accuracy_on_all_classes(only([whole, half])).lines
    assert line.name.label == "slda"
    assert line.cells[0].mean == pytest.approx(statistics.fmean(whole["zero_shot"]))
    assert [c.mean for c in line.cells[1:]] == pytest.approx(
        [statistics.fmean(row) for row in whole["r_union"]]
    )


def test_forgetting_shows_both_label_spaces_and_zero_shot_beside():
    results = several(3, 1, 4)
    board = only(results)
    shown = f.forgetting(board)
    for name, cells in zip(shown.names, shown.cells, strict=True):
        (run,) = [r for r in results if r["label"] == board.settings[name.place].label]
        metrics = run["metrics"]
        assert [c.mean for c in cells] == [metrics["forgetting"], metrics["forgetting_union"]]
        assert name.reference == (name.label == "zero_shot")
    assert "Dashed" in shown.note
    assert "raycl run zero_shot" in f.forgetting(only([result()])).note
    assert f.forgetting(only([result(tasks=1)])) is None


def test_seconds_and_state_are_those_recorded():
    results = [
        result("a", seconds={"learn": 3.0}, state_mib=2.0),
        result("b", seconds={"learn": 1.0, "fit": 8.0}, state_mib=0.0),
        result("c", seconds=None, state_mib=None),
    ]
    board = only(results)
    shown = f.seconds_per_stage(board)
    table = {
        name.label: dict(zip(shown.parts, values, strict=True))
        for name, values in zip(shown.names, shown.values, strict=True)
    }
    assert table == {"a": {"fit": 0.0, "learn": 3.0}, "b": {"fit": 8.0, "learn": 1.0}}
    points = f.accuracy_against_state(board)
    assert dict(zip((n.label for n in points.names), points.x, strict=True)) == {"a": 2.0, "b": 0.0}


@pytest.mark.parametrize("width", [330, 520])
@pytest.mark.parametrize("methods", [1, 6, 40])
def test_every_chart_is_drawn_at_every_width(width, methods):
    board = only(several(methods, 2, 7))
    for shown in f.figures(board):
        match shown:
            case f.LineChart():
                svg = line_chart(shown, width)
            case f.Scatter():
                svg = scatter(shown, width)
            case f.Bars():
                svg = bars(shown, width)
            case f.Stack():
                svg = stack(shown, width)
            case _:
                continue
        assert svg.startswith("<svg ") and svg.endswith("</svg>") and "nan" not in svg


@pytest.mark.parametrize("sd", [0.0, 10.0])
def test_the_number_of_a_bar_to_the_left_stands_clear_of_the_name(sd):
    names = [f.Name("a method with a long name", 0), f.Name("b", 1)]
    cells = [[Cell(-24.5, sd)], [Cell(42.2, 1.0)]]
    svg = bars(f.Bars("forgetting", "Forgetting", "", names, ["seen"], cells))
    words = re.findall(r'<text x="([-\d.]+)"[^>]*>([^<]*)<', svg)
    end = next(float(x) for x, said in words if said == "−24.5")
    name = next(float(x) for x, said in words if said.startswith("a method"))
    assert end - scales.width_of("−24.5", 11.5) > name


def test_a_line_does_not_bridge_what_is_undefined():
    one = result(tasks=5)
    one["metrics"]["stage_pooled"][2] = None
    chart = f.accuracy_over_tasks(only([one]))
    svg = line_chart(chart)
    assert svg.count('class="line ') == 2


NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(NUMBERS, st.floats(0, 1e6))
def test_ticks_enclose_what_they_measure(low, span):
    ticks = scales.linear_ticks(low, low + span)
    assert 2 <= len(ticks) <= 12
    slack = 1e-6 * (1 + abs(low) + span)
    assert ticks[0] <= low + slack and ticks[-1] >= low + span - slack
    assert ticks == sorted(set(ticks))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_percent_ticks_stay_within_percent(values):
    ticks = scales.percent_ticks(values)
    assert ticks[0] <= min(values) and ticks[-1] >= max(values)
    assert ticks[0] >= 0 and ticks[-1] <= 100


@given(st.floats(1e-4, 1e6), st.floats(1, 1e6))
def test_log_ticks_enclose_what_they_measure(low, factor):
    ticks = scales.log_ticks(low, low * factor)
    assert ticks[0] < low and ticks[-1] > low * factor and len(ticks) <= 14


@given(st.lists(st.floats(0, 300), min_size=1, max_size=30), st.floats(5, 20))
def test_labels_are_spread_within_bounds_or_given_up(wanted, gap):
    places = scales.spread(wanted, gap, 0, 300)
    if places is None:
        assert (len(wanted) - 1) * gap > 300
        return
    ordered = sorted(places)
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(ordered))
    assert ordered[0] >= -1e-6 and ordered[-1] <= 300 + 1e-6


def test_labels_with_room_stay_where_they_are():
    assert scales.spread([10.0, 200.0, 100.0], 15, 0, 300) == [10.0, 200.0, 100.0]
    assert scales.spread([100.0, 100.0], 10, 0, 300) == [95.0, 105.0]


@pytest.mark.parametrize("count", [1, 2, 9, 10, 50, 99, 1100])
def test_thinned_places_hold_the_first_and_the_last(count):
    kept = scales.thinned(count, 10)
    if count > 10:
        step = kept[2] - kept[1]
        assert all((i + 1) % step == 0 for i in kept[1:-1]), "round numbers"
    assert kept[0] == 0 and kept[-1] == count - 1 and len(kept) <= 12
    assert kept == sorted(set(kept))


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234.5, "1234"), (12.34, "12.3"), (1.0, "1"), (0.0004, "0.0004")]
)
def test_short_numbers(value, text):
    assert scales.short(value) == text


def test_a_fitted_text_fits():
    assert scales.fitted("short", 100) == "short"
    cut = scales.fitted("m" * 100, 60)
    assert cut.endswith("…") and scales.width_of(cut) <= 60
    assert math.isfinite(scales.width_of("漢字\u202e"))
