"""Files of others: accuracy matrices to import, figures as papers publish them."""

from __future__ import annotations

import csv
import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from raycl.report.published.table import FOLDER, rows_of
from tests.fuzz.asking import desk, examples, refused_in_words
from tests.fuzz.hostile import junk, names, values

CELLS = (
    "",
    "-",
    "0",
    "50",
    "91.5",
    "100",
    "100.1",
    "-1",
    "nan",
    "inf",
    "1e999",
    "50%",
    "50,5",
    "x",
)
cells = st.one_of(st.sampled_from(CELLS[:5]), st.sampled_from(CELLS), names)


@st.composite
def matrices(draw: st.DrawFn) -> str:
    """A CSV with a cell, a name or a row that is not as it should be."""
    tasks = draw(st.lists(st.one_of(names, st.sampled_from("abc")), min_size=0, max_size=4))
    rows = [["after_task", *tasks]]
    if draw(st.booleans()):
        rows.append(["zero_shot", *(draw(cells) for _ in tasks)])
    for i, task in enumerate(tasks):
        rows.append([task, *(str(60 + i + j) if j <= i else "" for j in range(len(tasks)))])
    for _ in range(draw(st.integers(0, 2))):
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, len(row) - 1))] = draw(cells)
    out = io.StringIO()
    csv.writer(out, delimiter=draw(st.sampled_from(",;\t"))).writerows(rows)
    return out.getvalue()


@st.composite
def logs(draw: st.DrawFn) -> str:
    """A log of mammoth with a value that is not as it should be."""
    tasks = draw(st.integers(0, 3))
    said: dict[str, Any] = {
        f"accuracy_{j}_task{i}": 50.0 + i + j for i in range(1, tasks + 1) for j in range(1, i + 1)
    }
    said |= {"model": "er", "dataset": "seq-cifar10", "seed": 1}
    for _ in range(draw(st.integers(0, 3))):
        extra = st.sampled_from(["seed", "model", "accuracy_1_task1", "accuracy_9999_task9", "x"])
        said[draw(st.one_of(extra, names))] = draw(values)
    raw = st.sampled_from(["{", "{}", "[]", "{**a}", "{'a': f()}", "{'a': -'b'}", "{'a': 1e999}"])
    return draw(st.one_of(st.just(repr(said)), raw))


FLAGS = ((), ("--unit", "fraction"), ("--tests", "1,2,3"), ("--seed", "0"), ("--stream", "s"))


@examples(70)
@given(
    text=st.one_of(matrices(), logs(), junk),
    name=st.sampled_from(["m.csv", "logs.pyd", "m"]),
    flags=st.sampled_from([*FLAGS, ("--format", "mammoth"), ("--format", "csv")]),
    method=names.filter(lambda name: "\0" not in name),
)
def test_a_result_of_others(
    text: str | bytes, name: str, flags: tuple[str, ...], method: str
) -> None:
    with desk() as here:
        here.write(name, text)
        answer = here.ask("import", name, f"--method={method}", *flags)
        assert answer.code in (0, 2)
        if answer.code == 0:
            for command in (("report",), ("report", "--html", "x.html"), ("table", "--latex")):
                assert here.ask(*command).code == 0


with (FOLDER / "cgil.csv").open(encoding="utf-8", newline="") as file:
    FIGURES = list(csv.DictReader(file))


@examples(80)
@given(
    line=st.sampled_from(FIGURES),
    column=st.sampled_from(sorted(FIGURES[0])),
    cell=st.one_of(names, st.sampled_from(CELLS), st.none()),
)
def test_a_published_figure(line: dict[str, str], column: str, cell: str | None) -> None:
    changed: Any = {**line, column: cell}
    if cell is None:
        del changed[column]
    with refused_in_words():
        for row in rows_of([changed, *FIGURES], "x.csv"):
            assert all(isinstance(figure.value, float) for figure in row.figures)
