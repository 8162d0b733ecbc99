"""Prompts: what to draw and from which seed, one image each; and files of them.

Guarantees that a file's rows keep their order, and that a missing column, an empty prompt or
a seed that is none is told with its row. Needs no torch.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raycl.config.places import is_file
from raycl.config.seeds import seed_for
from raycl.errors import DataError

PROMPT, SEED = "prompt", "seed"
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Prompt:
    """One image: its text, and the seed of its own generator."""

    text: str
    seed: int

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not isinstance(self.seed, int):
            raise DataError("a prompt is a text and a whole number", got=repr(self))
        if not 0 <= self.seed <= LARGEST_SEED:
            raise DataError("a seed is between 0 and 2⁶³-1", got=str(self.seed))


@dataclass(frozen=True)
class Asked:
    """The prompts of a file, and what else it says of each, such as a label."""

    prompts: tuple[Prompt, ...]
    columns: dict[str, tuple[Any, ...]]

    def times(self, each: int) -> Asked:
        """Every prompt `each` times: from its own seed, then from others that follow of it."""
        return Asked(
            tuple(
                Prompt(p.text, p.seed if i == 0 else seed_for(p.seed, "another image", i))
                for p in self.prompts
                for i in range(each)
            ),
            {
                name: tuple(value for value in values for _ in range(each))
                for name, values in self.columns.items()
            },
        )


def read_prompts(path: Path, seed: int = 0) -> Asked:
    """The prompts of a file, in its order.

    Parquet, CSV with a header, or JSON lines: a column `prompt`, perhaps `seed`, and others that
    are kept beside the images; or plain text, a prompt a line. Where no seed is given, it follows
    of `seed` and the row's number.
    """
    if not is_file(path):
        raise DataError("there is no such file of prompts", got=str(path), do="check the path")
    try:
        rows = list(_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"the prompts cannot be read: {type(error).__name__}: {error}", got=str(path)
        ) from error
    if not rows:
        raise DataError("the file holds no prompts", got=str(path))
    prompts = tuple(_prompt(path, i, row, seed) for i, row in enumerate(rows))
    # A CSV line with too many cells has them under None.
    others = dict.fromkeys(n for row in rows for n in row if n not in (None, PROMPT, SEED))
    return Asked(prompts, {name: tuple(row.get(name) for row in rows) for name in others})


def _prompt(path: Path, number: int, row: Mapping[str, Any], seed: int) -> Prompt:
    text, own = row[PROMPT], row.get(SEED)
    where = f"{path.name}, row {number + 1}"
    if not isinstance(text, str) or not text.strip():
        raise DataError("a prompt is empty or no text", got=f"{where}: {text!r}")
    if own is None or own == "":
        return Prompt(text, seed_for(seed, "prompt", number))
    try:
        return Prompt(text, int(str(own)))
    except (ValueError, DataError) as error:
        raise DataError(
            "a seed is a whole number from 0 to 2⁶³-1", got=f"{where}: {own!r}"
        ) from error


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    match path.suffix.lower():
        case ".parquet":
            yield from _parquet_rows(path)
        case ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                _check_columns(path, list(reader.fieldnames or ()))
                yield from reader
        case ".jsonl":
            yield from _json_rows(path)
        case ".txt":
            lines = path.read_text("utf-8").splitlines()
            yield from ({PROMPT: line} for line in lines if line.strip())
        case _:
            raise DataError("prompts come in .parquet, .csv, .jsonl or .txt files", got=path.name)


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names)
            table = file.read(use_threads=False)
    except pa.ArrowInvalid as error:
        raise DataError("not a whole Parquet file", got=str(path), do=str(error)) from error
    yield from table.to_pylist()


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(path.read_text("utf-8").splitlines()):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                "a line is not JSON", got=f"{path.name}, line {number + 1}: {error}"
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                "a line is no JSON object", got=f"{path.name}, line {number + 1}: {line[:60]}"
            )
        _check_columns(path, list(row))
        yield row


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if PROMPT in names:
        return
    close = difflib.get_close_matches(PROMPT, names, n=1, cutoff=0.4)
    raise DataError(
        f"the file has no column {PROMPT!r}",
        got=f"{path.name} with {', '.join(map(repr, names)) or 'no columns'}",
        do=(f"is it {close[0]!r}? Rename it; " if close else "")
        + f"prompts are in {PROMPT!r}, seeds, if any, in {SEED!r}",
    )
