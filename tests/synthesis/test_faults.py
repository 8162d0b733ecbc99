"""Workers, a raylet and the driver that die in the middle: the same images, none made twice
but for the chunk that a killed worker was at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from raycl.observe.events import Computed, Event, WorkerLost
from tests.engine.processes import Command, descendants, gone
from tests.synthesis.made_models import (
    made_images,
    made_prompts,
    record_bytes,
    small,
    small_model,
)

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
STEPS = 12
"""Of the command: a chunk of a fraction of a second, so that a signal finds it at work."""


def over(workers: int, observer: Any = None, **more: Any) -> Any:
    from raycl.compute.ray_pool import RayPool

    return RayPool(observer or (lambda event: None), workers=workers, **more)


def test_any_number_of_workers_and_a_killed_one_give_the_same_images(
    tmp_path: Path, ray_session: object
) -> None:
    prompts, spec = made_prompts(40), small(chunk=2, steps=4)
    here = made_images(tmp_path / "here", prompts, spec)
    events: list[Event] = []
    before: dict[str, bytes] = {}

    def watch(event: Event) -> None:
        events.append(event)
        if sum(isinstance(e, Computed) for e in events) == 4 and not before:
            before.update(record_bytes(tmp_path / "there"))
            workers = [p for p, name in descendants(os.getpid()) if name.startswith("ray::Pool")]
            os.kill(workers[0], signal.SIGKILL)

    with over(2, watch) as pool:
        there = made_images(tmp_path / "there", prompts, spec, pool=pool, observer=watch)
    assert sum(isinstance(e, WorkerLost) for e in events) == 1
    assert there.manifest == here.manifest and there.keys == here.keys
    after = record_bytes(tmp_path / "there")
    assert len(after) == 20 and before and before.items() <= after.items()
    # One chunk may have been stored by the dead worker, which could not tell of it.
    assert there.computed in (40, 38)


def run_of(folder: Path, *args: str) -> Command:
    spec = ("--model", small_model(), "--set", f"steps={STEPS}", "--set", "chunk=4")
    return Command(
        "synth", "--prompts", str(folder / "p.jsonl"), *spec, "--store", str(folder / "store"),
        *args, "--json", folder=folder,
    )  # fmt: skip


def write_prompts(folder: Path, count: int) -> None:
    rows = [{"prompt": p.text, "seed": p.seed} for p in made_prompts(count)]
    (folder / "p.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_what_a_stopped_command_painted_is_found_by_the_next(tmp_path: Path) -> None:
    write_prompts(tmp_path, 60)
    with run_of(tmp_path, "--out", "a") as command:
        command.until_seen(lambda: len(record_bytes(tmp_path / "store")) >= 2, "two chunks")
        began = time.monotonic()
        command.kill(signal.SIGTERM)
        assert command.end()[0] == 75 and time.monotonic() - began < 15
    kept = record_bytes(tmp_path / "store")
    assert 2 <= len(kept) < 15 and not (tmp_path / "a" / "manifest.json").exists()
    with run_of(tmp_path, "--out", "a") as command:
        result = command.result()
    assert result["images"] == 60 and result["reused"] == {"images": len(kept)}
    assert result["painted"] == 60 - 4 * len(kept)
    assert kept.items() <= record_bytes(tmp_path / "store").items()


# Long: run by `make ordeal`.


@pytest.mark.ordeal
@pytest.mark.timeout(1800)
def test_a_driver_that_is_killed_three_times(tmp_path: Path) -> None:
    write_prompts(tmp_path, 500)
    kept: dict[str, bytes] = {}
    for _ in range(3):
        wanted = len(kept) + 20
        with run_of(tmp_path, "--out", "a", "--pool", "ray", "--workers", "2") as command:
            command.until_seen(
                lambda wanted=wanted: len(record_bytes(tmp_path / "store")) >= wanted,  # type: ignore[misc]
                "chunks",
            )
            command.kill()
            command.end()
            # Its workers notice by themselves; what they finish meanwhile is stored.
            deadline = time.monotonic() + 60
            while not all(gone(pid) for pid, _ in command.below) and time.monotonic() < deadline:
                time.sleep(0.1)
        after = record_bytes(tmp_path / "store")
        assert kept.items() <= after.items(), "what is stored is not painted again"
        kept = after
    with run_of(tmp_path, "--out", "a", "--pool", "ray", "--workers", "2") as command:
        result = command.result(900)
    assert result["images"] == 500 and kept.items() <= record_bytes(tmp_path / "store").items()
    spec = small(chunk=4, steps=STEPS, guidance=7.5)
    alone = made_images(tmp_path / "alone", made_prompts(500), spec)
    lines = (tmp_path / "a" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == alone.manifest


@pytest.mark.ordeal
@pytest.mark.timeout(1800)
def test_a_node_that_is_lost_with_its_raylet(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.synthesis.losing_a_node", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["same"] and told["lost"] >= 1 and told["stored_before"] >= 40
    assert told["painted_again"] == [] and told["chunks"] == 125
