"""The tables of `benchmarks/` can be begun: every row of every stream is a method that exists.

A row is measured after those before it, so a spec that is refused would cost an hour first.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from raycl.config.methods import BUILT_IN

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def methods_of(script: str, on: str) -> list[tuple[str, Any]]:
    module = importlib.import_module(script)
    match script:
        case "method_table":
            return [(name, method) for name, method, _ in module.rows(on)]
        case "generator_table":
            return list(module.rows(False, on))
        case "dmc":
            return list(module.rows(on, False).items())
        case _:
            return list(module.rows("tiny-sd", False).items())


@pytest.mark.parametrize(
    ("script", "on"),
    [
        *(("method_table", on) for on in ("cars", "text4", "text4-back", "joint6")),
        *((s, on) for s in ("method_table", "generator_table") for on in ("digits", "tiny-xtail")),
        *(("generator_table", on) for on in ("cars", "text4", "glyphs")),
        *(("dmc", on) for on in ("digits", "tiny-xtail")),
        ("clts", "digits"),
    ],
)
def test_every_row_of_a_table_is_a_method(script: str, on: str) -> None:
    found = methods_of(script, on)
    names = [name for name, _ in found]
    assert len(set(names)) == len(names) > 3
    assert all(isinstance(method, BUILT_IN) for _, method in found)
