"""How a result looks on a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from raycl.engine.run import RunResult
from raycl.observe.console import Console

SHOWN = (
    ("last_pooled", "last"),
    ("avg_inc_pooled", "average over tasks"),
    ("forgetting", "forgetting"),
    ("transfer", "transfer"),
    ("last_union", "last, union"),
)


def show_result(result: RunResult) -> None:
    """The matrix over seen classes, the main metrics, the cost."""
    console = Console()
    values = result.values
    title = f"{values['label']} on {values['stream_label']}: accuracy over seen classes, %"
    console.print(title, highlight=False, markup=False)
    console.print(_matrix(values), highlight=False)
    metrics, why = values["metrics"], values["why_null"]
    for name, title in SHOWN:
        text = f"{metrics[name]:.1f} %" if metrics[name] is not None else f"–  ({why[name]})"
        console.print(f"{title:>20}  {text}", highlight=False, markup=False)
    seconds = sum(values["seconds"].values())
    console.print(
        f"{'state':>20}  {values['state_mib']:.2f} MiB\n{'time':>20}  {seconds:.1f} s",
        highlight=False,
    )
    console.print(f"{'key':>20}  {result.key}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{'computed':>20}  {_counts(result.computed)}", highlight=False)
    console.print(f"{'reused':>20}  {_counts(result.reused)}", highlight=False)


def _matrix(values: dict[str, object]) -> Table:
    rows = values["r_seen"]
    assert isinstance(rows, list)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("after", justify="right")
    for task in range(len(rows)):
        table.add_column(str(task + 1), justify="right")
    for stage, row in enumerate(rows):
        cells = ["" if j > stage else "–" if v is None else f"{v:.1f}" for j, v in enumerate(row)]
        table.add_row(str(stage + 1), *cells)
    return table


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())) or "nothing"
