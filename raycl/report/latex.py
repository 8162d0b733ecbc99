"""The leaderboard as LaTeX: a booktabs table for each stream, backbone and protocol.

Guarantees: whatever a label holds is escaped; the best of a column is bold where higher is
better; null is `--` with its reason below; the caption says how many runs a mean is over, the
notes under what protocol. Needs no package but booktabs.
"""

from __future__ import annotations

from collections.abc import Sequence

from raycl.printable import plain
from raycl.report.boards import Board
from raycl.report.footnotes import is_imported, protocol_notes
from raycl.report.intervals import LEVEL, Spread, with_spread
from raycl.report.leaderboard import COSTS, DEFAULT_METRICS, Cell, Row, row_of, shown

_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "±": r"$\pm$", "–": "--", "×": r"$\times$", "·": r"$\cdot$",
    "…": r"\ldots{}", "†": r"$\dagger$",
}  # fmt: skip

_WORDS = {
    "last_pooled": "last", "avg_inc_pooled": "average", "last_union": "last (all)",
    "average": "average (all)", "state_mib": "MiB", "seconds": "s",
}  # fmt: skip

_LOWER_IS_BETTER = ("forgetting", "forgetting_union")
_WITHOUT_BEST = (*COSTS, "ece_seen", "ece_unseen", "predicted_recent", "predicted_recent_fair")


def to_latex(
    boards: Sequence[Board], metrics: Sequence[str] = DEFAULT_METRICS, spread: Spread = "sd"
) -> str:
    """One `table` environment for each board. Needs `booktabs`."""
    return "\n".join(_table(board, metrics, spread) for board in boards)


def _table(board: Board, metrics: Sequence[str], spread: Spread) -> str:
    rows = with_spread([row_of(setting, metrics) for setting in board.settings], spread)
    columns = [*metrics, *COSTS]
    best = {name: _best(rows, name) for name in columns}
    head = " & ".join(["method", *(escaped(_WORDS.get(c, c.replace("_", " "))) for c in columns)])
    reasons: list[str] = []
    body = ""
    for setting, row in zip(board.settings, rows, strict=True):
        mark = "$^\\dagger$" if is_imported(setting.runs) else ""
        cells = [_cell(row, column, best[column], reasons) for column in columns]
        body += f"{escaped(row.label)}{mark} & {' & '.join(cells)} \\\\\n"
    return (
        "% \\usepackage{booktabs}\n"
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_caption(board, rows, spread)}}}\n"
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}\n\\toprule\n"
        f"{head} \\\\\n\\midrule\n{body}\\bottomrule\n"
        "\\end{tabular}\n"
        f"{_notes(protocol_notes(board), reasons)}\\end{{table}}\n"
    )


def _notes(protocol: Sequence[str], reasons: Sequence[str]) -> str:
    """The sentences below a table, the reasons of its nulls with the letters that they have."""
    marked = [f"$^{{{_letter(i)}}}$ {escaped(why)}." for i, why in enumerate(reasons)]
    lines = [*(escaped(note) for note in protocol), *marked]
    text = "\\\\\n".join(lines)
    return "\n\\smallskip\n\\parbox{\\linewidth}{\\footnotesize\\raggedright\n" + text + "\n}\n"


def _letter(place: int) -> str:
    return chr(ord("a") + place) if place < 26 else str(place + 1)


def _caption(board: Board, rows: Sequence[Row], spread: Spread) -> str:
    counts = sorted({row.n for row in rows})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    how = (
        "$\\pm$ sample standard deviation"
        if spread == "sd"
        else f"with its {LEVEL} \\% interval (Student's $t$)"
    )
    mean = f"mean {how} over $n = {n}$ runs" if counts[-1] > 1 else "one run each"
    first = board.first
    where = f"{escaped(board.name)}; backbone {escaped(first.backbone)}; {escaped(first.protocol)}"
    return f"{where}. Percent, {mean}; -- is undefined."


def _best(rows: Sequence[Row], name: str) -> str | None:
    """The best as it is shown: what looks equal is equally bold."""
    if name in _WITHOUT_BEST or name in _LOWER_IS_BETTER or len(rows) < 2:
        return None
    means = [mean for row in rows if (mean := row.cells[name].mean) is not None]
    return f"{max(means):.1f}" if means else None


def _cell(row: Row, name: str, best: str | None, reasons: list[str]) -> str:
    cell = row.cells[name]
    if cell.mean is None:
        return f"--{_mark(cell, reasons)}"
    if name in COSTS:
        return shown(name, cell)
    mean = f"{cell.mean:.1f}"
    text = f"\\textbf{{{mean}}}" if mean == best else mean
    if cell.interval is not None:
        return f"{text} [{cell.interval[0]:.1f}, {cell.interval[1]:.1f}]"
    return text if cell.sd is None else f"{text} $\\pm$ {cell.sd:.1f}"


def _mark(cell: Cell, reasons: list[str]) -> str:
    """The letter of a null's reason, which is told once below the table."""
    if not cell.why:
        return ""
    if cell.why not in reasons:
        reasons.append(cell.why)
    return f"$^{{{_letter(reasons.index(cell.why))}}}$"


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_SIGNS.get(c, c) for c in plain(text))
