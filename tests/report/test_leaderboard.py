"""Which runs share a row, what the row says, and how it survives each rendering."""

from __future__ import annotations

import csv
import io

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from raycl.errors import ConfigError, DataError
from raycl.report.leaderboard import leaderboard, to_csv, to_markdown, to_rich, write_parquet

METRICS = ("last_pooled", "transfer")


def result(key: str, last: float | None = 50.0, transfer: float | None = 30.0, **changes):
    metrics = {"last_pooled": last, "transfer": transfer, "stage_pooled": [1.0, 2.0]}
    return {
        "key": key,
        "method": "finetune",
        "label": "finetune(loss=local)",
        "stream": "digits",
        "backbone": "tiny-clip",
        "protocol": "class-incremental",
        "seeds": {"order_seed": 0},
        "metrics": metrics,
        "why_null": {name: "no rule" for name, value in metrics.items() if value is None},
        "state_mib": 1.5,
        "seconds": {"embed": 1.0, "learn": 2.0},
        **changes,
    }


def test_runs_of_one_setting_make_one_row():
    (row,) = leaderboard([result("a", 40.0), result("b", 46.0), result("c", 43.0)], METRICS)
    assert row.n == 3
    assert row.cells["last_pooled"].mean == pytest.approx(43.0)
    assert row.cells["last_pooled"].sd == pytest.approx(3.0)
    assert str(row.cells["last_pooled"]) == "43.0 ± 3.0"
    assert row.cells["seconds"].mean == 2.0  # embedding is shared, and no run's own


def test_one_run_shows_no_deviation():
    (row,) = leaderboard([result("a", 41.26)], METRICS)
    assert row.cells["last_pooled"].sd is None
    assert str(row.cells["last_pooled"]) == "41.3"


def test_a_result_that_comes_twice_counts_once():
    (row,) = leaderboard([result("a", 40.0), result("b", 42.0), result("a", 40.0)], METRICS)
    assert row.n == 2
    assert row.cells["last_pooled"].mean == 41.0


def test_streams_of_one_name_and_other_data_are_told_apart():
    one = result("a", setting="1" * 8, contents=["1" * 64])
    two = result("b", method="ncm", label="ncm", setting="2" * 8, contents=["2" * 64])
    names = {row.stream for row in leaderboard([one, two], METRICS)}
    assert len(names) == 2
    assert all(name.startswith("digits #") for name in names)
    same = result("c", method="ncm", label="ncm", setting="3" * 8, contents=["1" * 64])
    assert {row.stream for row in leaderboard([one, same], METRICS)} == {"digits"}


@pytest.mark.parametrize("name", ["label", "stream", "backbone", "protocol"])
def test_rows_never_mix(name):
    rows = leaderboard([result("a"), result("b", **{name: "other"})], METRICS)
    assert [row.n for row in rows] == [1, 1]
    assert {getattr(row, name) for row in rows} == {result("a")[name], "other"}


def test_rows_stand_by_stream_and_the_best_first():
    rows = leaderboard(
        [
            result("a", 10.0, label="low"),
            result("b", None, label="none"),
            result("c", 90.0, label="high"),
            result("d", 5.0, label="cars", stream="cars"),
        ],
        ["transfer"],
    )
    assert [row.label for row in rows] == ["cars", "high", "low", "none"]


def test_the_method_stands_in_for_a_missing_label():
    run = result("a")
    del run["label"]
    assert leaderboard([run], METRICS)[0].label == "finetune"


def test_a_null_in_one_run_makes_the_mean_null():
    (row,) = leaderboard([result("a"), result("b", transfer=None)], METRICS)
    cell = row.cells["transfer"]
    assert (cell.mean, cell.why) == (None, "no rule (in 1 of 2 runs)")


def test_a_true_zero_is_a_number():
    (row,) = leaderboard([result("a", 0.0), result("b", 0.0)], METRICS)
    assert str(row.cells["last_pooled"]) == "0.0 ± 0.0"


def test_markdown_is_aligned_and_explains_nulls():
    rows = leaderboard(
        [
            result("a", 40.0, label="a|b\\c <i>"),
            result("b", 50.25, transfer=None),
            result("c", 50.75, transfer=None),
        ],
        METRICS,
    )
    assert (
        to_markdown(rows)
        == r"""| label                | stream | backbone  | protocol          |   n | last_pooled | transfer | state_mib | seconds |
| -------------------- | ------ | --------- | ----------------- | --: | ----------: | -------: | --------: | ------: |
| finetune(loss=local) | digits | tiny-clip | class-incremental |   2 |  50.5 ± 0.4 |    –[^1] |       1.5 |       2 |
| a\|b\\c &lt;i>       | digits | tiny-clip | class-incremental |   1 |        40.0 |     30.0 |       1.5 |       2 |

[^1]: no rule
"""  # noqa: E501
    )


def test_markdown_without_nulls_has_no_footnote():
    assert "[^" not in to_markdown(leaderboard([result("a")], METRICS))


def test_csv_keeps_full_precision_and_leaves_null_empty():
    third = 100.0 / 3
    rows = leaderboard([result("a", third, None, label='a "b", c')], METRICS)
    (read,) = csv.DictReader(io.StringIO(to_csv(rows)))
    assert read["label"] == 'a "b", c'
    assert float(read["last_pooled"]) == third
    assert (read["transfer"], read["transfer_sd"], read["last_pooled_sd"]) == ("", "", "")


def test_parquet_holds_the_same_columns(tmp_path):
    rows = leaderboard([result("a", 40.0), result("b", 42.0, None)], METRICS)
    write_parquet(rows, tmp_path / "board.parquet")
    table = pq.read_table(tmp_path / "board.parquet")
    assert table.column_names == next(csv.reader(io.StringIO(to_csv(rows))))
    (read,) = table.to_pylist()
    assert (read["n"], read["last_pooled"], read["transfer"]) == (2, 41.0, None)


def test_the_terminal_shows_brackets_as_they_are():
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(*to_rich(leaderboard([result("a", label="mine[red]")], METRICS)))
    text = console.export_text()
    assert "mine[red]" in text
    assert "50.0" in text


def test_an_empty_board_is_a_header():
    assert leaderboard([]) == []
    assert to_markdown([]).startswith("| label | stream |")
    assert to_csv([]).count("\n") == 1


@pytest.mark.parametrize(
    ("name", "says"), [("last_poled", "did you mean last_pooled"), ("stage_pooled", "every stage")]
)
def test_a_metric_without_a_column_is_refused(name, says):
    with pytest.raises(ConfigError, match=says):
        leaderboard([result("a")], [name])


def test_a_known_metric_that_a_result_lacks_is_null():
    (row,) = leaderboard([result("a")], ["forgetting"])
    assert row.cells["forgetting"].why == "not in the result"


def test_something_else_than_a_result_is_refused():
    with pytest.raises(DataError, match="no method, stream"):
        leaderboard([{"key": "a", "metrics": {}}])


def test_a_measurement_that_was_defined_anew_counts_once():
    seeds = [{"seeds": {"order": 0}}, {"seeds": {"order": 1}}]
    old = [result(f"old{i}", 10.0, setting="s", revisions=[1, 1], **seeds[i]) for i in range(2)]
    new = result("new0", 50.0, setting="s", revisions=[1, 2], **seeds[0])
    (row,) = leaderboard([*old, new], METRICS)
    assert (row.n, row.cells["last_pooled"].mean) == (1, 50.0)


def test_rows_that_were_set_differently_stay_apart():
    rows = leaderboard([result("a", setting="s"), result("b", setting="t")], METRICS)
    assert [row.n for row in rows] == [1, 1]
