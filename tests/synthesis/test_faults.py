"""Workers, a raylet and the driver that die in the middle: the same images, none made twice
but for the chunk that a killed worker was at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raycl.observe.events import Computed, Event, WorkerLost
from raycl.store.store import Store
from raycl.synthesis.synthesise import Images
from tests.engine.processes import Command, descendants, gone
from tests.synthesis.made_models import digests, made_images, made_prompts, small, small_model

pytestmark = pytest.mark.ray


def over(workers: int, observer: Any = None, **more: Any) -> Any:
    from raycl.compute.ray_pool import RayPool

    return RayPool(observer or (lambda event: None), workers=workers, **more)


def records(place: Path) -> dict[str, bytes]:
    """Every chunk's record, which painting it again would replace."""
    return {
        str(file.parent): file.read_bytes()
        for file in (place / "artefacts/images").rglob("record.json")
    }


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
            before.update(records(tmp_path / "there"))
            workers = [p for p, name in descendants(os.getpid()) if name.startswith("ray::Pool")]
            os.kill(workers[0], signal.SIGKILL)

    with over(2, watch) as pool:
        there = made_images(tmp_path / "there", prompts, spec, pool=pool, observer=watch)
    assert sum(isinstance(e, WorkerLost) for e in events) == 1
    assert there.manifest == here.manifest and there.keys == here.keys
    after = records(tmp_path / "there")
    assert len(after) == 20 and before and before.items() <= after.items()
    # One chunk may have been stored by the dead worker, which could not tell of it.
    assert there.computed in (40, 38)


def run_of(folder: Path, *args: str) -> Command:
    spec = ("--model", small_model(), "--set", "steps=25", "--set", "chunk=4")
    return Command(
        "synth", "--prompts", str(folder / "p.jsonl"), *spec, "--store", str(folder / "store"),
        *args, "--json", folder=folder,
    )  # fmt: skip


def write_prompts(folder: Path, count: int) -> None:
    rows = [{"prompt": p.text, "seed": p.seed} for p in made_prompts(count)]
    (folder / "p.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_ctrl_c_and_sigterm_save_and_the_same_command_goes_on(tmp_path: Path) -> None:
    write_prompts(tmp_path, 32)
    with run_of(tmp_path, "--out", "a") as command:
        command.until_seen(lambda: len(records(tmp_path / "store")) >= 2, "two chunks")
        began = time.monotonic()
        command.kill(signal.SIGTERM)
        assert command.end()[0] == 75 and time.monotonic() - began < 15
    kept = records(tmp_path / "store")
    assert 2 <= len(kept) < 8 and not (tmp_path / "a" / "manifest.json").exists()
    with run_of(tmp_path, "--out", "a") as command:
        result = command.result()
    assert result["images"] == 32 and result["reused"] == {"images": len(kept)}
    assert result["painted"] == 32 - 4 * len(kept)
    assert kept.items() <= records(tmp_path / "store").items()


# Long: run by `make ordeal`.


@contextlib.contextmanager
def undisturbed(folder: Path, count: int) -> Iterator[Images]:
    yield made_images(folder / "alone", made_prompts(count), small(chunk=4, steps=25, guidance=7.5))


@pytest.mark.ordeal
@pytest.mark.timeout(900)
def test_a_driver_that_is_killed_three_times(tmp_path: Path) -> None:
    write_prompts(tmp_path, 500)
    seen = 0
    for _ in range(3):
        with run_of(tmp_path, "--out", "a", "--pool", "ray", "--workers", "2") as command:
            wanted = seen + 20
            command.until_seen(
                lambda wanted=wanted: len(records(tmp_path / "store")) >= wanted,
                "chunks",  # type: ignore[misc]
            )
            command.kill()
            command.end()
            # Its workers notice by themselves; what they finish meanwhile is stored.
            deadline = time.monotonic() + 60
            while not all(gone(pid) for pid, _ in command.below) and time.monotonic() < deadline:
                time.sleep(0.1)
        kept = records(tmp_path / "store")
        seen = len(kept)
    with run_of(tmp_path, "--out", "a", "--pool", "ray", "--workers", "2") as command:
        result = command.result(600)
    assert result["images"] == 500 and kept.items() <= records(tmp_path / "store").items()
    with undisturbed(tmp_path, 500) as alone:
        lines = (tmp_path / "a" / "manifest.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == alone.manifest


@pytest.mark.ordeal
@pytest.mark.timeout(900)
def test_a_node_that_is_lost(tmp_path: Path) -> None:
    """The raylet of one of two nodes is killed, and with it the workers on it."""
    from ray.cluster_utils import Cluster

    from raycl.compute.ray_session import connect

    prompts, spec = made_prompts(500), small(chunk=4, steps=25, guidance=7.5)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        other = cluster.add_node(num_cpus=1)
        events: list[Event] = []
        before: dict[str, bytes] = {}

        def watch(event: Event) -> None:
            events.append(event)
            if sum(isinstance(e, Computed) for e in events) == 30 and not before:
                before.update(records(tmp_path / "there"))
                cluster.remove_node(other, allow_graceful=False)

        with connect(cluster.address), over(2, watch) as pool:
            there = made_images(tmp_path / "there", prompts, spec, pool=pool, observer=watch)
    finally:
        cluster.shutdown()
    assert before.items() <= records(tmp_path / "there").items()
    lost = sum(isinstance(e, WorkerLost) for e in events)
    assert lost >= 1 and len(list(Store.open(str(tmp_path / "there")).records("images"))) == 125
    with undisturbed(tmp_path, 500) as alone:
        assert digests(alone) == digests(there)
