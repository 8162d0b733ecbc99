"""Published figures: whole, each with a recipe that is its protocol, and never ranked with ours."""

from __future__ import annotations

import csv
import io

import pytest
from made_results import HOSTILE, result
from rich.console import Console

from raycl.config.space_files import experiment_of
from raycl.errors import ConfigError, DataError
from raycl.metrics import definitions
from raycl.report.page import page
from raycl.report.published.against import against
from raycl.report.published.mismatch import canonical
from raycl.report.published.showing import section, to_rich
from raycl.report.published.table import FOLDER, Row, papers, published, rows_of
from raycl.search.shipped_spaces import find_space

XTAIL = "aircraft+caltech101+dtd+eurosat+flowers+food101+mnist+pets+cars+sun397"
ROWS = [(paper, row) for paper in papers() for row in published(paper)]


def like_the_paper(**changes):
    """A result under LADA's protocol at 16 shots, order I."""
    made = result(
        changes.pop("method", "lada"), tasks=10, per_task=110, stream=XTAIL,
        stream_label=f"{XTAIL}, 10 tasks, 16 shots", backbone="ViT-B-16:openai",
        protocol="x-tail", **changes,
    )  # fmt: skip
    kind = made["method"]
    made["experiment"] = {"stream": {"shots": 16}, "method": {"kind": kind}, "validation": {}}
    return made


def rendered(found) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(*to_rich(found), sep="\n")
    return console.export_text()


def row_of(label: str, order: str = "I", shots: str = "16") -> Row:
    (found,) = [
        row for row in published("lada")
        if (row.label, row.protocol.order, row.protocol.shots) == (label, order, shots)
    ]  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("paper", "row"), ROWS, ids=[f"{p}-{r.label}-{i}" for i, (p, r) in enumerate(ROWS)]
)
def test_a_row_names_what_raycl_knows(paper: str, row: Row) -> None:
    assert row.protocol.source and row.figures
    for figure in row.figures:
        assert not figure.metric or callable(getattr(definitions, figure.metric))
        assert 0 < figure.value < 100
    if not row.recipe:
        assert not row.method or not row.is_comparable
        return
    experiment = experiment_of(find_space(row.recipe), {}, 0)
    method = experiment.method.model_dump()
    assert method["kind"] == row.method
    assert all(str(method[name]) == value for name, value in row.options)
    stream = experiment.stream
    places = getattr(stream, "names", None) or [path.rsplit("/", 1)[-1] for path in stream.paths]
    assert tuple(map(canonical, places)) == row.protocol.data
    assert row.protocol.tasks == (experiment.stream.tasks or len(row.protocol.data))
    if row.protocol.shots != "none":
        assert str(experiment.stream.shots or "all") == row.protocol.shots
    assert str(experiment.backbone.name).startswith(row.protocol.backbone)


def test_the_figures_of_xtail_are_those_of_the_paper() -> None:
    assert [f.text for f in row_of("LADA").figures] == ["61.5", "72.7", "83.1"]
    assert [f.text for f in row_of("LADA", "II", "all").figures] == ["55.4", "69.2", "86.9"]
    assert [f.metric for f in row_of("Primal-RAIL").figures] == ["average", "last_union"]


def test_the_same_protocol_has_differences_and_says_what_still_differs() -> None:
    ours = like_the_paper()
    ours["metrics"] |= {"transfer": 60.0, "average": 73.2, "last_union": 83.1}
    found = against("lada", [ours])
    (held,) = [one for block in found.blocks for one in block.held]
    assert held.row == row_of("LADA") and held.is_comparable
    differences = [held.difference(figure) for figure in held.row.figures]
    assert differences == pytest.approx([-1.5, 0.5, 0.0])
    assert {one.what for one in held.mismatches} == {"seeds", "split"}
    text = rendered(found)
    assert "-1.5" in text and "+0.5" in text and "theirs one, which is not named" in text


@pytest.mark.parametrize(
    ("changes", "what", "decisive"),
    [
        ({"stream": "+".join(reversed(XTAIL.split("+")))}, "order of the data sets", True),
        ({"stream": "digits"}, "data", True),
        ({"class_names": ["a", "b"]}, "classes", True),
        ({"protocol": "class-incremental"}, "protocol", True),
        ({"backbone": "ViT-B-32:openai"}, "backbone", False),
        ({"seeds": {}}, "seeds", False),
    ],
)
def test_each_part_that_differs_is_said(changes, what: str, decisive: bool) -> None:
    found = against("lada", [{**like_the_paper(), **changes}])
    (held,) = [one for block in found.blocks for one in block.held]
    one = next(one for one in held.mismatches if one.what == what)
    assert one.decisive == decisive == (not held.is_comparable)
    if decisive:
        assert all(held.difference(figure) is None for figure in held.row.figures)
        assert "no difference is given" in rendered(found)
    assert str(one) in section(found, "a").replace("&#x27;", "'")


def test_a_stream_with_a_name_of_its_own_is_known_by_its_parts() -> None:
    ours = {**like_the_paper(), "stream": "xtail"}
    ours["experiment"]["stream"]["names"] = XTAIL.split("+")
    (held,) = [one for block in against("lada", [ours]).blocks for one in block.held]
    assert held.is_comparable


def test_what_a_validation_split_judged_is_not_compared() -> None:
    ours = like_the_paper()
    ours["experiment"]["validation"] = {"judge": "held_out"}
    (held,) = [one for block in against("lada", [ours]).blocks for one in block.held]
    assert not held.is_comparable


def test_options_tell_two_rows_of_one_method_apart() -> None:
    dual = like_the_paper(method="rail")
    dual["experiment"]["method"]["form"] = "dual"
    found = against("lada", [dual])
    assert [one.row.label for block in found.blocks for one in block.held] == ["Dual-RAIL"]


def test_theirs_keep_their_order_and_other_methods_stay_out() -> None:
    found = against("lada", [like_the_paper(), result("slda")])
    block = next(b for b in found.blocks if (b.protocol.order, b.protocol.shots) == ("I", "16"))
    assert [row.label for row in block.rows] == [
        "LwF", "WiSE-FT", "ZSCL", "MoE-Adapters", "Primal-RAIL", "Dual-RAIL", "LADA",
    ]  # fmt: skip
    assert found.others == ["slda on made, 4 tasks"]


def test_the_page_has_both_and_no_leaderboard_holds_theirs() -> None:
    ours = like_the_paper()
    text = page([ours], paper=against("lada", [ours]))
    before, after = text.split('<section class="board" id="board-1')
    assert "MoE-Adapters" in before and "MoE-Adapters" not in after


@pytest.mark.parametrize("label", HOSTILE)
def test_what_a_label_holds_is_escaped(label: str) -> None:
    ours = like_the_paper(label=label or "-")
    found = against("lada", [ours])
    assert "<script>alert" not in section(found, "a") and "<img" not in section(found, "a")
    rendered(found)


def test_claims_that_no_run_can_be_held_against_are_told() -> None:
    assert "1.80 points" in rendered(against("dmc", []))
    assert "86.2 %" in rendered(against("cgil", []))


@pytest.mark.parametrize(
    ("name", "words"),
    [("ladda", "did you mean lada"), ("auto-seed", "not shown as published"), ("", "cgil, clts")],
)
def test_an_unknown_paper_is_refused(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        published(name)
    assert words in str(error.value)


def test_a_figure_twice_or_none_is_refused() -> None:
    with (FOLDER / "lada.csv").open(encoding="utf-8", newline="") as file:
        line = next(csv.DictReader(file))
    with pytest.raises(DataError, match="line 3: this figure is there twice"):
        rows_of([line, dict(line)], "x.csv")
    with pytest.raises(DataError, match="line 2"):
        rows_of([{**line, "figure": "6l.5"}], "x.csv")
