"""The leaderboard as LaTeX: a booktabs table for each stream, backbone and protocol.

Guarantees: whatever a label holds is escaped; the best of a column is bold where higher is
better; null is `--`; the caption says how many runs a mean is over.
"""

from __future__ import annotations

from collections.abc import Sequence

from raycl.report.boards import Board
from raycl.report.leaderboard import COSTS, DEFAULT_METRICS, Row, row_of, shown

_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\n": " ", "\r": " ",
    "±": r"$\pm$", "–": "--",
}  # fmt: skip

_WORDS = {
    "last_pooled": "last", "avg_inc_pooled": "average", "last_union": "last (all)",
    "average": "average (all)", "state_mib": "MiB", "seconds": "s",
}  # fmt: skip

_LOWER_IS_BETTER = ("forgetting", "forgetting_union")
_WITHOUT_BEST = (*COSTS, "ece_seen", "ece_unseen", "predicted_recent", "predicted_recent_fair")


def to_latex(boards: Sequence[Board], metrics: Sequence[str] = DEFAULT_METRICS) -> str:
    """One `table` environment for each board. Needs `booktabs`."""
    return "\n".join(_table(board, metrics) for board in boards)


def _table(board: Board, metrics: Sequence[str]) -> str:
    rows = [row_of(setting, metrics) for setting in board.settings]
    columns = [*metrics, *COSTS]
    best = {name: _best(rows, name) for name in columns}
    head = " & ".join(["method", *(escaped(_WORDS.get(c, c.replace("_", " "))) for c in columns)])
    body = "".join(
        f"{escaped(row.label)} & {' & '.join(_cell(row, c, best[c]) for c in columns)} \\\\\n"
        for row in rows
    )
    return (
        "% \\usepackage{booktabs}\n"
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_caption(board, rows)}}}\n"
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}\n\\toprule\n"
        f"{head} \\\\\n\\midrule\n{body}\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def _caption(board: Board, rows: Sequence[Row]) -> str:
    counts = sorted({row.n for row in rows})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    mean = (
        f"mean $\\pm$ sample standard deviation over $n = {n}$ runs"
        if counts[-1] > 1
        else "one run each"
    )
    first = board.first
    where = f"{escaped(board.name)}; backbone {escaped(first.backbone)}; {escaped(first.protocol)}"
    return f"{where}. Percent, {mean}; -- is undefined."


def _best(rows: Sequence[Row], name: str) -> str | None:
    """The best as it is shown: what looks equal is equally bold."""
    if name in _WITHOUT_BEST or name in _LOWER_IS_BETTER or len(rows) < 2:
        return None
    means = [mean for row in rows if (mean := row.cells[name].mean) is not None]
    return f"{max(means):.1f}" if means else None


def _cell(row: Row, name: str, best: str | None) -> str:
    cell = row.cells[name]
    if cell.mean is None:
        return "--"
    if name in COSTS:
        return shown(name, cell)
    mean = f"{cell.mean:.1f}"
    text = f"\\textbf{{{mean}}}" if mean == best else mean
    return text if cell.sd is None else f"{text} $\\pm$ {cell.sd:.1f}"


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_SIGNS.get(c, c) for c in text if c >= " " or c in "\n\r")
