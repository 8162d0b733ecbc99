"""Nodes that die, come and are drained: the work ends on others, with the same numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]  # clusters on busy machines


def told_by(module: str, *args: str, folder: Path, seconds: int = 570) -> dict[str, Any]:
    """What a scenario of its own process and cluster says in the end."""
    ended = subprocess.run(
        [sys.executable, "-m", f"tests.compute.{module}", str(folder), *args],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_the_learner_moves_to_another_node(tmp_path: Path) -> None:
    told = told_by("losing_a_node", folder=tmp_path)
    first, second = told["places"]
    assert first != second
    assert told["left"] == [second]
    assert told["lost"] == 1


def test_a_fit_outlives_a_node_and_leaves_one_that_is_drained(tmp_path: Path) -> None:
    """One raylet is killed, another node comes, a third is drained; GPUs are numbers."""
    told = told_by("living_cluster", "fit", folder=tmp_path)
    assert told["left"] == 0, "every plan was carried out"
    assert told["lost"] == ["ClassFitter"], "the drain lost no worker"
    assert told["moved"], "the worker of the drained node was replaced"
    assert told["refitted"] == 0 and told["classes"] == 24 and told["same"]


def test_a_learner_saves_and_leaves_a_node_that_is_drained(tmp_path: Path) -> None:
    told = told_by("living_cluster", "run", folder=tmp_path)
    assert told["left"] == 0 and told["lost"] == []
    assert [text.partition(":")[0] for text in told["moved"]] == ["the learner moves"]
    assert told["tasks"] == 3 and told["same"]


@pytest.mark.ordeal
def test_a_service_leaves_a_node_that_is_drained(tmp_path: Path) -> None:
    told = told_by("living_cluster", "service", folder=tmp_path)
    assert told == {"moved": True, "asked": 2}


@pytest.mark.ordeal
def test_a_trial_leaves_a_node_that_is_drained(tmp_path: Path) -> None:
    """Its process would be used again for the next trial, if it merely ended."""
    told = told_by("living_cluster", "sweep", folder=tmp_path)
    assert told == {"nodes": 2, "states": {"complete": 2}, "lost": 0, "same": True}


@pytest.mark.ordeal
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("time", range(5))
@pytest.mark.parametrize("scenario", ["fit", "run"])
def test_the_same_again_and_again(tmp_path: Path, scenario: str, time: int) -> None:
    told = told_by("living_cluster", scenario, folder=tmp_path)
    assert told["left"] == 0 and told["same"] and told.get("refitted", 0) == 0


@pytest.mark.ordeal
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cut_for", ["for-a-moment", "for-good"])
def test_a_host_is_cut_off_and_healed(tmp_path: Path, cut_for: str) -> None:
    """Two hosts in network namespaces of their own; cut off for good, one joins anew."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    # Short, because Unix sockets below it have a limit of about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="raycl-") as folder:
        told = told_by("separate_hosts", cut_for, folder=Path(folder), seconds=800)
    assert told["same"] and told["refitted"] == 0 and told["classes"] == 24
    assert bool(told["lost"]) == (cut_for == "for-good")
    assert len(told["hosts"]) == 2, "the host that was cut off is back"
