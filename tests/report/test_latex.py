"""The LaTeX table: balanced, escaped, one row per setting, the best in bold."""

from __future__ import annotations

import re

import pytest
from made_results import HOSTILE, result, several

from raycl.report.boards import boards
from raycl.report.footnotes import protocol_notes
from raycl.report.intervals import quantile, with_spread
from raycl.report.latex import escaped, to_latex
from raycl.report.leaderboard import leaderboard


def rows(text: str) -> list[list[str]]:
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0]
    return [line.removesuffix(" \\\\").split(" & ") for line in body.strip().splitlines()]


def balanced(text: str) -> bool:
    depth = 0
    for sign in re.sub(r"\\[{}\\]", "", text):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return False
    return depth == 0


@pytest.mark.parametrize("label", HOSTILE)
def test_whatever_a_label_holds_the_table_stands(label):
    text = to_latex(boards([result(label=label or "-", stream_label=label or "-"), result("ncm")]))
    assert balanced(text)
    for name in ("table", "tabular"):
        assert (
            text.count(f"\\begin{{{name}}}")
            == text.count(f"\\end{{{name}}}")
            == len(boards([result(label=label or "-", stream_label=label or "-"), result("ncm")]))
        )
    columns = len(re.search(r"\\begin\{tabular\}\{(l[r]+)\}", text)[1])
    for part in text.split("\\begin{table}")[1:]:
        for row in rows(part):
            cells = re.split(r"(?<!\\)&", " & ".join(row))
            assert len(cells) == columns
    assert not re.search(r"(?<!\\)[_#%]", text.replace("% \\usepackage{booktabs}", ""))


def test_every_sign_of_latex_is_escaped():
    assert escaped("a_b & 5% #1 $x$ {y} ~ ^ \\ <>|") == (
        r"a\_b \& 5\% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"\textless{}\textgreater{}\textbar{}"
    )


def test_the_best_is_bold_where_higher_is_better_and_null_is_a_dash():
    high, low = result("high", unseen=False), result("low")
    high["metrics"] |= {"last_pooled": 80.0, "forgetting": 9.0}
    low["metrics"] |= {"last_pooled": 70.0, "forgetting": 1.0}
    text = to_latex(boards([high, low]), ["last_pooled", "forgetting", "transfer"])
    first, second = rows(text)
    assert first[:4] == ["high", r"\textbf{80.0}", "9.0", "--$^{a}$"]
    assert "$^{a}$ the method has no rule for classes" in text
    assert second[1:3] == ["70.0", "1.0"] and second[3].startswith(r"\textbf{")


def test_the_caption_counts_the_runs_and_cells_show_deviations():
    text = to_latex(boards(several(2, 3, 4)))
    assert "over $n = 3$ runs" in text and r"$\pm$" in rows(text)[0][1]
    assert "one run each" in to_latex(boards([result()]))
    assert r"\pm" not in rows(to_latex(boards([result()])))[0][1]


def test_student_s_t_is_as_the_books_have_it():
    assert [round(quantile(n), 3) for n in (1, 2, 4, 30)] == [12.706, 4.303, 2.776, 2.042]


def test_an_interval_is_of_the_mean_and_needs_two_runs():
    runs = several(1, 3, 4)
    for run, score in zip(runs, (70.0, 71.0, 72.0), strict=True):
        run["metrics"]["last_pooled"] = score
    (row,) = with_spread(leaderboard(runs, ["last_pooled"]), "interval")
    assert str(row.cells["last_pooled"]) == "71.0 [68.5, 73.5]"
    (cell, *_) = rows(to_latex(boards(runs), ["last_pooled"], "interval"))[0][1:]
    assert cell == "71.0 [68.5, 73.5]"
    (alone,) = with_spread(leaderboard(runs[:1], ["last_pooled"]), "interval")
    assert str(alone.cells["last_pooled"]) == "70.0"
    assert "\\pm" in to_latex(boards(runs), ["last_pooled"])
    assert "interval (Student's $t$)" in to_latex(boards(runs), ["last_pooled"], "interval")


def test_the_protocol_stands_below_and_nothing_that_is_not_recorded():
    made = result(protocol="x-tail")
    made["experiment"] |= {
        "stream": {"shots": 16},
        "validation": {"judge": "test", "fraction": 0.1, "scope": "first_k", "first_k": 3},
    }
    (board,) = boards([made])
    notes = protocol_notes(board)
    assert notes[0].startswith("Protocol X-TAIL") and "(16 a class)" in notes[1]
    assert "12 classes in 4 tasks" in notes[1] and "400 test samples" in notes[1]
    assert any("10 % of the training samples of the first 3 tasks" in note for note in notes)
    made["experiment"]["validation"]["judge"] = "held_out"
    assert any(note.startswith("Development figures") for note in protocol_notes(*boards([made])))
    bare = {k: v for k, v in made.items() if k not in ("experiment", "tasks", "seeds")}
    bare["seeds"] = {}
    assert len(protocol_notes(*boards([bare]))) == 1


def test_what_was_imported_has_a_dagger():
    theirs = result("theirs", label="theirs (imported)", imported={"file": "a_b.csv"})
    text = to_latex(boards([result("slda"), theirs]))
    assert any(row[0] == r"theirs (imported)$^\dagger$" for row in rows(text))
    assert r"$\dagger$ Imported from a\_b.csv" in text and balanced(text)
