"""A result log of mammoth (aimagelab/mammoth): `logs.pyd`, a Python dictionary on each line.

As `Logger.write` of its `utils/loggers.py` writes it at commit 032b8a04: the run's arguments and
`accuracy_J_taskI`, percent on task J after task I, for class-il and task-il. Lines are parsed, and
nothing in them is ever run: what is no plain value is left out. Its older `mean_accs.csv`, and
logs of domain-il, hold means alone, which make no matrix.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from raycl.errors import DataError
from raycl.report.imported.matrix import ForeignMatrix, Value

_ACCURACY = re.compile(r"accuracy_(\d{1,4})_task(\d{1,4})")
_RESULT = re.compile(r"accmean_task\d+|accuracy_\d+_task\d+|forward_transfer|backward_transfer")
_EXECUTION = re.compile(
    r"seed|device|notes|forgetting|model|dataset|backbone|nowand|debug_mode|disable_log|"
    r"savecheck|save_.*|loadcheck|ckpt_name|num_workers|distributed|base_path|results_path|"
    r"non_verbose|start_from|stop_after|inference_only|(conf|wandb|tensorboard)_?.*"
)
"""Arguments that tell no two settings apart."""
_NUMBERS = ("float", "int", "float64", "float32", "float16", "int64", "int32", "bool_", "str_")
_LONGEST = 10_000_000


def read_mammoth(text: str, where: str) -> Iterator[ForeignMatrix]:
    """A matrix for each line."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            place = f"{where}, line {number}"
            yield _matrix(_values(line.strip(), place), place)


def _matrix(values: dict[str, object], place: str) -> ForeignMatrix:
    cells = {
        (int(found[2]), int(found[1])): value
        for name, value in values.items()
        if (found := _ACCURACY.fullmatch(name)) and isinstance(value, int | float)
    }
    if not cells:
        means = any(name.startswith("accmean_task") for name in values)
        raise DataError(
            f"{place}: no accuracy of single tasks",
            got="means alone, as domain-il logs them" if means else ", ".join(values)[:80],
            do="a log of class-il holds accuracy_J_taskI; a matrix of your own may be CSV",
        )
    tasks = max(stage for stage, _ in cells)
    rows = tuple(
        tuple(_number(cells.get((i, j))) if j <= i else None for j in range(1, tasks + 1))
        for i in range(1, tasks + 1)
    )
    later = sum(j > i for i, j in cells)
    note = f"{later} accuracies on tasks not learnt yet are left out: among what is not said"
    seed, options = values.get("seed"), {}
    for name, value in values.items():
        if not _RESULT.fullmatch(name) and not _EXECUTION.fullmatch(name) and value is not None:
            options[name] = value
    return ForeignMatrix(
        cells=rows,
        tasks=tuple(f"task {t + 1}" for t in range(tasks)),
        method=_word(values.get("model")),
        stream=_word(values.get("dataset")),
        backbone=_word(values.get("backbone")),
        seed=seed if isinstance(seed, int) else None,
        options=options,
        warnings=(note,) if later else (),
    )


def _number(value: object) -> Value:
    return float(value) if isinstance(value, int | float) else None


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _values(line: str, place: str) -> dict[str, object]:
    """Names and plain values of a dictionary as Python prints it."""
    do = "name a logs.pyd of mammoth, with a dictionary on each line"
    if len(line) > _LONGEST:
        raise DataError(f"{place}: the line is too long", got=f"{len(line):,} characters", do=do)
    try:
        tree = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise DataError(f"{place}: not a dictionary", got=line[:40], do=do) from error
    if not isinstance(tree, ast.Dict):
        raise DataError(f"{place}: not a dictionary", got=line[:40], do=do)
    return {
        str(key.value): _plain(value)
        for key, value in zip(tree.keys, tree.values, strict=True)
        if isinstance(key, ast.Constant)
    }


def _plain(node: ast.expr) -> object:
    """A value as it is printed: numbers of numpy are calls, nan is a name."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _plain(operand)
            return -inner if isinstance(inner, int | float) else None
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[argument]):
            return _plain(argument) if name in _NUMBERS else None
        case ast.Name(id="nan" | "inf" as name):
            return float(name)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_plain(part) for part in parts]
    return None
