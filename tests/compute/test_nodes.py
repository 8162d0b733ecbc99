"""The loss of a whole node: the work ends on another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.ray
def test_the_learner_moves_to_another_node(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.compute.losing_a_node", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    first, second = told["places"]
    assert first != second
    assert told["left"] == [second]
    assert told["lost"] == 1
