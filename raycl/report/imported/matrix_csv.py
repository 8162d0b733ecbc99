"""A matrix as CSV: a header with the tasks in the order of learning, then a row after each task.

    after_task,digits,letters
    zero_shot,52.1,40.3        (may be left out)
    digits,91.0,41.2
    letters,88.4,85.9

Cells before a task is learnt may all be empty. Commas, semicolons (then with decimal commas, if
one likes) or tabs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from raycl.errors import DataError
from raycl.report.imported.matrix import ForeignMatrix, Value

_EMPTY = ("", "-", "–", "—")
_ZERO_SHOT = ("zero_shot", "zero-shot", "zero shot", "zeroshot", "0")
FORM = "begin with a header line such as after_task,TASK,TASK… and give a row after each task"


def read_csv(text: str, where: str) -> ForeignMatrix:
    """The matrix in this text, unchecked but for its form."""
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except csv.Error as error:
        raise DataError(f"{where} is not CSV", got=error, do=FORM) from error
    if not lines:
        raise DataError(f"{where} is empty", do=FORM)
    tasks = _tasks(lines[0][1], where)
    names: list[str] = []
    rows: list[tuple[Value, ...]] = []
    for number, row in lines[1:]:
        place = f"{where}, line {number}"
        if len(row) != len(tasks) + 1:
            raise DataError(
                f"{place}: a row has as many cells as the header",
                got=f"{len(row)} in place of {len(tasks) + 1}",
            )
        names.append(row[0])
        rows.append(tuple(_cell(cell, place, separator) for cell in row[1:]))
    has_baseline = bool(names) and names[0].lower() in _ZERO_SHOT
    zero_shot = rows.pop(0) if has_baseline else None
    _check_stages(names[1:] if has_baseline else names, tasks, where)
    return ForeignMatrix(tuple(rows), tasks, zero_shot)


def _tasks(header: Sequence[str], where: str) -> tuple[str, ...]:
    tasks = tuple(header[1:])
    if not tasks or all(_is_number(cell) for cell in header):
        raise DataError(f"{where} has no header", got=", ".join(header)[:60], do=FORM)
    if not all(tasks):
        raise DataError(f"{where}: a task has no name", got=", ".join(header)[:120])
    _refuse_twice(tasks, f"{where}: two columns have one name")
    return tasks


def _check_stages(names: Sequence[str], tasks: tuple[str, ...], where: str) -> None:
    _refuse_twice(names, f"{where}: two rows have one name")
    if len(names) != len(tasks):
        raise DataError(
            f"{where}: there must be a row after each task",
            got=f"{len(names)} rows for {len(tasks)} tasks",
            do=FORM,
        )
    if set(names) == set(tasks) and list(names) != list(tasks):
        row, column = next(pair for pair in zip(names, tasks, strict=True) if pair[0] != pair[1])
        raise DataError(
            f"{where}: rows and columns are not in one order",
            got=f"row {row}, column {column}",
            do="put both in the order of learning",
        )


def _refuse_twice(names: Sequence[str], what: str) -> None:
    if len(set(names)) < len(names):
        raise DataError(what, got=next(name for name in names if names.count(name) > 1))


def _cell(text: str, place: str, separator: str) -> Value:
    if text in _EMPTY:
        return None
    plain = text.removesuffix("%").rstrip()
    plain = plain if separator == "," else plain.replace(",", ".")
    if not _is_number(plain):
        raise DataError(f"{place}: not a number", got=text, do="leave a gap empty")
    return float(plain)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
