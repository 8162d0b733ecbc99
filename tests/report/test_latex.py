"""The LaTeX table: balanced, escaped, one row per setting, the best in bold."""

from __future__ import annotations

import re

import pytest
from made_results import HOSTILE, result, several

from raycl.report.boards import boards
from raycl.report.latex import escaped, to_latex


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
    assert first[:4] == ["high", r"\textbf{80.0}", "9.0", "--"]
    assert second[1:3] == ["70.0", "1.0"] and second[3].startswith(r"\textbf{")


def test_the_caption_counts_the_runs_and_cells_show_deviations():
    text = to_latex(boards(several(2, 3, 4)))
    assert "over $n = 3$ runs" in text and r"$\pm$" in rows(text)[0][1]
    assert "one run each" in to_latex(boards([result()]))
    assert r"\pm" not in rows(to_latex(boards([result()])))[0][1]
