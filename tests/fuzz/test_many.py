"""The same surfaces with forty times as many examples, new ones each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MANY = os.environ.get("RAYCL_FUZZ", "40")


@pytest.mark.ordeal
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "surface", sorted(p.name for p in HERE.glob("test_*.py") if p != Path(__file__))
)
def test_many(surface: str) -> None:
    args = [sys.executable, "-m", "pytest", "-q", "-x", "--timeout", "7000", str(HERE / surface)]
    environment = {**os.environ, "RAYCL_FUZZ": MANY}
    done = subprocess.run(
        args, env=environment, cwd=HERE.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
