"""Whole runs of CLTS on a folder of images, with a small Stable Diffusion of random weights."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.config.loading import load, parse_setting
from raycl.config.methods import parse_method
from raycl.config.streams import parse_stream
from raycl.engine.identity import RunIdentity
from raycl.engine.run import RunResult, run
from raycl.errors import ConfigError, DataError, StoppedError
from raycl.store.store import Store
from raycl.synthesis.random_models import write_random_pipeline
from tests.embedding import made_images
from tests.engine.processes import Command
from tests.engine.worlds import World, numbers, predictions_digests

SMALL = (
    "stream.tasks=2",
    "backbone.batch=8",
    "method.captions.captioner.kind=attributes",
    "method.captions.captioner.slots=[ink,ground]",
    "method.captions.per_class=4",
    "method.captions.duplicates=keep",
    "method.images_per_caption=2",
    "method.synthesis.steps=2",
    "method.synthesis.chunk=4",
    "method.heads.least_steps=20",
    "method.router={kind: trained, least_steps: 20}",
)


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_pipeline(tmp_path_factory.mktemp("models") / "small", "small")


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_images, "CLASSES", ("cat", "dog", "fish", "bird"))
        return made_images.save_folder(tmp_path_factory.mktemp("data") / "pets")


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed."""

    result: RunResult
    store: Path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, pets: Path, painter: Path) -> Whole:
    store = tmp_path_factory.mktemp("whole")
    return Whole(run_on(pets, store, painter), store)


def experiment_on(pets: Path, model: Path, *settings: str) -> Experiment:
    every = (*SMALL, f"method.synthesis.model={model}", *settings)
    tree = {"method": parse_method("clts"), "stream": parse_stream(f"folder:{pets}")}
    return load([tree, *(parse_setting(text) for text in every)]).experiment


def run_on(pets: Path, store: Path, model: Path, *settings: str, **execution: Any) -> RunResult:
    experiment = experiment_on(pets, model, *settings)
    return run(experiment, Execution(store=str(store), **execution))


def test_a_run_tells_what_it_keeps_and_how_it_routed(whole: Whole) -> None:
    found = whole.result
    assert found.computed["captions"] == 4 and found.computed["images"] == 8
    first, last = found.values["figures"]
    assert first["captions"] == 8 and last["captions"] == 16
    assert last["captioned_image_bytes"] == 16 * 40 * 36 * 3
    assert last["caption_bytes"] < last["captioned_image_bytes"] / 50
    assert last["generator_bytes"] > 0
    assert {"caption", "synthesise", "head", "router"} <= set(found.values["seconds"])
    terms = ("share", "routed", "head_if_routed")
    parts = [[last[f"task_{t}.{name}"] or 0.0 for name in terms] for t in (1, 2)]
    summed = sum(a * b * c for a, b, c in parts) / 1e4
    assert summed == pytest.approx(found.metrics["last_pooled"], abs=1e-3)
    assert last["accuracy_oracle"] >= last["accuracy_hard"]
    kinds = {record.kind for record in Store.open(str(whole.store)).records()}
    assert {"captions", "images"} <= kinds


def test_deleted_images_are_painted_again_to_the_same_numbers(
    tmp_path: Path, pets: Path, painter: Path, whole: Whole
) -> None:
    with pytest.raises(StoppedError):
        run_on(pets, tmp_path / "store", painter, stop_after=1)
    store = Store.open(str(tmp_path / "store"))
    images = list(store.records("images"))
    assert len(images) == 4
    for record in images:
        store.discard(record.key)
    again = run_on(pets, tmp_path / "store", painter)
    assert again.computed["images"] == 8, "the first task's too, from captions and seeds"
    assert again.computed["captions"] == 2
    assert numbers(again) == numbers(whole.result)
    assert predictions_digests(tmp_path / "store") == predictions_digests(whole.store)


def test_captions_are_kept_with_the_run_and_images_are_not(whole: Whole) -> None:
    store = Store.open(str(whole.store))
    needed = {key for record in store.records("state") for key in record.needs}
    assert {r.key for r in store.records("captions")} <= needed
    assert not {r.key for r in store.records("images")} & needed


def test_another_model_under_the_same_name_is_another_run(
    tmp_path: Path, pets: Path, painter: Path, whole: Whole
) -> None:
    moved = tmp_path / "elsewhere"
    moved.symlink_to(painter)
    assert run_on(pets, whole.store, moved).computed == {}, "a moved folder is the same"
    moved.unlink()
    moved.symlink_to(write_random_pipeline(tmp_path / "other", "small", seed=1))
    experiment = experiment_on(pets, moved)
    assert RunIdentity.of(experiment).result.key != whole.result.key


def test_what_no_model_is_needed_for_needs_none(tmp_path: Path, pets: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(DataError, match="nowhere"):
        run_on(pets, tmp_path / "store", nowhere)
    for control in ("method.replay=real", "method.router={kind: energy}"):
        found = run_on(pets, tmp_path / "store", nowhere, control)
        assert "images" not in found.computed and "captions" not in found.computed


def test_given_vectors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vectors only"):
        World(tmp_path).run("clts")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("captions", marks=pytest.mark.ordeal),
        "images",
        pytest.param("state", marks=pytest.mark.ordeal),
    ],
)
def test_a_killed_run_continues_to_the_same_numbers(
    tmp_path: Path, pets: Path, painter: Path, whole: Whole, kind: str
) -> None:
    """SIGKILL while it captions, synthesises or trains in the second task."""
    store = tmp_path / "store"
    settings = [part for text in SMALL for part in ("--set", text)]
    command = (
        *("run", "clts", "--stream", f"folder:{pets}", "--store", str(store), "--json"),
        *(*settings, "--set", f"method.synthesis.model={painter}"),
    )
    done = {"captions": 3, "images": 6, "state": 1}[kind]

    def enough() -> bool:
        records = store.glob(f"artefacts/{kind}/*/*/record.json")
        return sum(1 for _ in records) >= done

    with Command(*command, folder=tmp_path) as first:
        first.until_seen(enough, f"{done} {kind}")
        first.kill(signal.SIGKILL)
        assert first.end()[0] == -signal.SIGKILL
    with Command(*command, folder=tmp_path) as second:
        values = second.result()
    assert values["computed"].get("images", 0) <= 8 - (6 if kind == "images" else 0)
    assert values["r_seen"] == whole.result.values["r_seen"]
    assert predictions_digests(store) == predictions_digests(whole.store)
