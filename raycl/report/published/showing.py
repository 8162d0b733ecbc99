"""A paper's figures with ours beside them, on a terminal and as a section of the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raycl.report.canvas import safe
from raycl.report.published.against import Against, Block, Held
from raycl.report.published.mismatch import NOT_STATED
from raycl.report.published.table import PERCENT, Figure, Protocol, Row

ABOUT = (
    "Theirs as published, in the paper's order; ours below. A difference is given only where data, "
    "classes, tasks and label space are the same; all else that differs is said."
)
NOTHING = "–"

_WORDS = {
    "last_pooled": "last",
    "last_task_mean": "last, task mean",
    "avg_inc_pooled": "average",
    "last_union": "last, all",
    "average": "average, all",
    "ci_transfer": "CI-Transfer",
}


@dataclass(frozen=True)
class Line:
    """A line of a block's table; of ours, what differs."""

    whose: str
    label: str
    cells: dict[str, str]
    held: Held | None = None

    @property
    def words(self) -> str:
        """What is said of the difference, or of why there is none."""
        if self.held is None or not self.held.mismatches:
            return ""
        comparable = self.held.is_comparable
        return "differs in" if comparable else "another protocol, so no difference is given"


def to_rich(found: Against) -> list[Group]:
    """A table for each protocol of the paper, then what stands alone."""
    groups = [_block_on_terminal(block) for block in found.blocks]
    tail = [Text(line, style="dim") for line in (*_claims(found), *_others(found))]
    return [*groups, Group(*tail)] if tail else groups


def section(found: Against, anchor: str) -> str:
    """The same for the page."""
    blocks = "".join(_block_on_page(block) for block in found.blocks)
    tail = "".join(f"<li>{safe(line)}</li>" for line in (*_claims(found), *_others(found)))
    return (
        f'<section class="board" id="{anchor}" aria-labelledby="{anchor}-h">'
        f'<h2 id="{anchor}-h">Beside the paper: {safe(found.paper)}</h2>'
        f'<p class="lead">{ABOUT}</p>{blocks}'
        + (f'<ul class="claims">{tail}</ul>' if tail else "")
        + "</section>"
    )


def title(protocol: Protocol) -> str:
    """The protocol in one line."""
    data = protocol.data[0] if len(protocol.data) == 1 else f"{len(protocol.data)} data sets"
    if len(protocol.data) == 10 and protocol.protocol == "x-tail":
        data = "X-TAIL"
    if protocol.order:
        data += f", order {protocol.order}"
    shots = {"": f"shots {NOT_STATED}", "all": "all shots", "none": "nothing trained"}
    parts = [
        protocol.source,
        data,
        shots.get(protocol.shots, f"{protocol.shots} shots"),
        f"{protocol.tasks} tasks" if protocol.tasks else "",
        f"{protocol.classes:,} classes" if protocol.classes else "",
        protocol.backbone or f"backbone {NOT_STATED}",
        protocol.protocol,
    ]
    return " · ".join(part for part in parts if part)


def _lines(block: Block) -> Iterator[Line]:
    for row in block.rows:
        yield Line("theirs", row.label, {figure.metric: figure.text for figure in row.figures})
        for held in block.beside(row):
            ours = {metric: str(cell) for metric, cell in held.cells.items()}
            yield Line(f"{held.whose}, n = {held.n}", held.label, ours, held)
            if held.is_comparable:
                differences = {f.metric: _signed(held.difference(f)) for f in row.figures}
                yield Line("difference", "", differences)


def _signed(difference: float | None) -> str:
    return NOTHING if difference is None else f"{difference:+.1f}"


def _notes(block: Block) -> Iterator[str]:
    """What is to be said of the published rows, and how to have ours beside them."""
    for row in block.rows:
        yield from dict.fromkeys(_noted(figure, row) for figure in row.figures if figure.note)
    missing = [row for row in block.rows if not block.is_run(row)]
    if there := [f"{row.label} (raycl sweep {row.recipe})" for row in missing if row.recipe]:
        yield f"Not run here: {', '.join(there)}"
    if absent := [row.label for row in missing if not row.recipe]:
        yield f"Not in raycl: {', '.join(absent)}"


def _noted(figure: Figure, row: Row) -> str:
    alone = all(other.note == figure.note for other in row.figures)
    return f"{row.label}{'' if alone else f', {_word(figure.metric)}'}: {figure.note}"


def _word(metric: str) -> str:
    return _WORDS.get(metric, metric.replace("_", " "))


def _claims(found: Against) -> Iterator[str]:
    for row, figure in found.claims:
        metric = f" {_word(figure.metric)}" if figure.metric else ""
        unit = figure.unit if figure.unit in (PERCENT, "×") else f" {figure.unit}"
        space = " " if unit == PERCENT else ""
        said = f"{figure.text}{space}{unit} ({row.protocol.source})"
        yield f"{row.label}{metric}: {said}; {figure.note}"


def _others(found: Against) -> Iterator[str]:
    if found.others:
        yield f"Not in this paper: {'; '.join(found.others)}"


def _block_on_terminal(block: Block) -> Group:
    table = _terminal_table(block)
    below: list[RenderableType] = []
    for line in _lines(block):
        style = {"theirs": "dim", "difference": "bold"}.get(line.whose, "default")
        mark = ""
        if line.held is not None and line.words:
            mark = f" [{len(below) + 1}]"
            parts = "\n".join(f"    {one}" for one in line.held.mismatches)
            below.append(Text(f"{mark.strip()} {line.words}\n{parts}"))
        # Text, because a label may hold [brackets].
        shown = [Text(line.cells.get(metric, NOTHING), style) for metric in block.metrics]
        table.add_row(Text(line.label + mark, style), Text(line.whose, style), *shown)
    below += [Text(note, style="dim") for note in _notes(block)]
    return Group(Text(title(block.protocol), style="bold"), table, *below, Text(""))


def _terminal_table(block: Block) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold underline")
    table.add_column("method", overflow="fold")
    table.add_column("whose", no_wrap=True)
    for metric in block.metrics:
        table.add_column(_word(metric), justify="right", no_wrap=True)
    return table


def _block_on_page(block: Block) -> str:
    heads = "".join(f'<th scope="col">{safe(_word(metric))}</th>' for metric in block.metrics)
    body = "".join(_row_on_page(line, block) for line in _lines(block))
    notes = "".join(f"<li>{safe(note)}</li>" for note in _notes(block))
    return (
        f'<div class="part"><h3>{safe(title(block.protocol))}</h3></div>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Published and ours">'
        '<table class="against"><thead><tr><th scope="col">method</th><th scope="col">whose</th>'
        f'{heads}</tr></thead><tbody>{body}</tbody></table></div><ul class="claims">{notes}</ul>'
    )


def _row_on_page(line: Line, block: Block) -> str:
    kind = line.whose.split(",")[0]
    numbers = "".join(f"<td>{safe(line.cells.get(m, NOTHING))}</td>" for m in block.metrics)
    row = (
        f'<tr class="{kind}"><th scope="row">{safe(line.label)}</th>'
        f"<td>{safe(line.whose)}</td>{numbers}</tr>"
    )
    if line.held is None or not line.words:
        return row
    parts = "".join(f"<li>{safe(str(one))}</li>" for one in line.held.mismatches)
    return (
        f'{row}<tr class="words"><td colspan="{2 + len(block.metrics)}">{line.words}'
        f"<ul>{parts}</ul></td></tr>"
    )
