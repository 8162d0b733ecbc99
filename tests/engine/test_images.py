"""Runs on images: embedded once for all, resumed at the chunk, and honest about corrupt ones."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from raycl.backbones.encoder import load_encoder
from raycl.config.execution import Execution
from raycl.config.loading import load, parse_setting
from raycl.config.methods import parse_method
from raycl.config.streams import parse_stream
from raycl.engine.run import RunResult, run
from raycl.errors import ConfigError, DataError
from raycl.observe.events import Event, Warned
from raycl.store.store import Store
from tests.embedding.made_images import damage, save_folder, stored_digests
from tests.engine.processes import Command
from tests.engine.worlds import numbers, predictions_digests


def run_on(stream: str, store: Path, *settings: str, method: str = "ncm", **more: Any) -> RunResult:
    execution = {k: more.pop(k) for k in ("pool", "workers") if k in more}
    observer = more.pop("observer", lambda event: None)
    tree = {"method": parse_method(method), "stream": parse_stream(stream), **more}
    config = load([tree, *(parse_setting(text) for text in settings)])
    return run(config.experiment, Execution(store=str(store), **execution), observer)


def test_methods_seeds_and_orders_share_one_embedding(tmp_path: Path) -> None:
    pets = f"folder:{save_folder(tmp_path / 'pets')}"
    computed: dict[str, int] = {}
    for method in ("ncm", "slda"):
        for seed in (0, 1):
            result = run_on(pets, tmp_path / "store", "stream.tasks=2", method=method, seed=seed)
            for kind, count in result.computed.items():
                computed[kind] = computed.get(kind, 0) + count
    shots = run_on(pets, tmp_path / "store", "stream.tasks=1", "stream.shots=2")
    assert computed["features"] == computed["features-chunk"] == computed["text"] == 1
    assert computed["result"] == 4
    assert "features" not in shots.computed and shots.reused["features"] == 1


def test_the_result_says_what_was_embedded_by_what(tmp_path: Path) -> None:
    values = run_on("digits", tmp_path / "store", "stream.tasks=5", method="zero_shot").values
    assert values["backbone"] == "tiny-clip" and len(values["weights"]) == 3
    assert values["label"] == "zero_shot" and values["corrupt"] == []
    assert values["logit_scale"] > 1 and "embed" in values["seconds"]
    record = Store.open(str(tmp_path / "store")).record(values["key"])
    assert record is not None
    assert {key.split("/")[0] for key in record.needs} == {
        "features",
        "text",
        "predictions",
        "state",
    }
    other = run_on("digits", tmp_path / "store", "backbone.logit_scale=7", "stream.tasks=5").values
    assert other["logit_scale"] == 7.0


def test_corrupt_images_stop_a_run_or_are_left_out_and_listed(tmp_path: Path) -> None:
    root = save_folder(tmp_path / "pets")
    bad = damage(root / "train/cat/003.jpg")
    with pytest.raises(DataError, match=r"1 image cannot be decoded: .*003\.jpg"):
        run_on(f"folder:{root}", tmp_path / "store", "stream.tasks=2")
    events: list[Event] = []
    result = run_on(
        f"folder:{root}",
        tmp_path / "store",
        "stream.tasks=2",
        "stream.corrupt=skip",
        observer=events.append,
    )
    assert result.values["corrupt"] == [str(bad)]
    assert any("003.jpg" in warning for warning in result.values["warnings"])
    assert any(isinstance(e, Warned) and "left out 1 image" in e.message for e in events)
    assert sorted(task["train"] for task in result.values["tasks"]) == [5, 6]


ASKS = """
from raycl import Method, Spec


class Asks(Method[Spec]):
    def learn(self, task, context):
        names = [self.setting.class_names[c] for c in task.classes]
        keys = self.setting.encoder.encode_texts([f"a photo of a {name}." for name in names])
        keys = keys / keys.norm(dim=1, keepdim=True)
        assert (keys - self.setting.text[list(task.classes)]).abs().max() < 1e-5

    def seen_scores(self, x):
        return x @ self.setting.text[list(self.seen)].T

    def state(self):
        return {}

    def restore(self, state):
        pass
"""


def test_a_method_may_ask_the_encoder_which_is_loaded_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asks.py").write_text(ASKS)
    pets = f"folder:{save_folder(tmp_path / 'pets')}"
    method = str(tmp_path / "asks.py")
    run_on(pets, tmp_path / "store", "stream.tasks=2", method=method)
    loaded: list[Any] = []

    def loading(*asked: Any) -> Any:
        loaded.append(asked)
        return load_encoder(*asked)

    monkeypatch.setattr("raycl.engine.data.load_encoder", loading)
    run_on(pets, tmp_path / "store", "stream.tasks=2", method="slda")
    assert loaded == []
    run_on(pets, tmp_path / "store", "stream.tasks=1", method=method)
    assert len(loaded) == 1


MISMATCHES = [
    ("digits", "given", None, "the stream holds images"),
    ("embeddings:set.npz", "tiny-clip", None, "the stream holds vectors already"),
    ("digits", None, "embeddings:set.npz", "the probe holds vectors already"),
    ("embeddings:set.npz", None, "digits", "the probe holds images"),
]


@pytest.mark.parametrize(("stream", "backbone", "probe", "part"), MISMATCHES)
def test_backbone_and_streams_must_fit(
    tmp_path: Path, stream: str, backbone: str | None, probe: str | None, part: str
) -> None:
    more = {"probe": parse_stream(probe)} if probe else {}
    with pytest.raises(ConfigError, match=part):
        run_on(stream, tmp_path / "store", backbone={"name": backbone}, **more)


@pytest.mark.ray
def test_ray_gives_the_numbers_of_this_process(tmp_path: Path, ray_session: object) -> None:
    pets = f"folder:{save_folder(tmp_path / 'pets')}"
    asked = ("stream.tasks=2", "backbone.batch=4")
    here = run_on(pets, tmp_path / "here", *asked, method="finetune")
    there = run_on(pets, tmp_path / "there", *asked, method="finetune", pool="ray")
    assert numbers(there) == numbers(here) and there.computed == here.computed
    assert predictions_digests(tmp_path / "here") == predictions_digests(tmp_path / "there")
    assert stored_digests(tmp_path / "here") == stored_digests(tmp_path / "there")


def records_of(store: Path, kind: str) -> list[Path]:
    return list((store / "artefacts" / kind).rglob("record.json"))


def test_a_killed_embedding_computes_only_what_is_missing(tmp_path: Path) -> None:
    asked = ("embed", "digits", "--set", "backbone.batch=8", "--json", "--store")
    whole = Command(*asked, str(tmp_path / "whole"), folder=tmp_path).result()
    chunks = whole["computed"]["features-chunk"]
    assert chunks == 4

    command = Command(*asked, str(tmp_path / "store"), folder=tmp_path)
    deadline = time.monotonic() + 100
    while not records_of(tmp_path / "store", "features-chunk"):
        assert command.process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    command.kill()
    assert command.end()[0] == -signal.SIGKILL
    finished = len(records_of(tmp_path / "store", "features-chunk"))
    assert 1 <= finished < chunks
    again = Command(*asked, str(tmp_path / "store"), folder=tmp_path).result()
    assert again["computed"]["features-chunk"] == chunks - finished
    assert again["reused"]["features-chunk"] == finished
    assert stored_digests(tmp_path / "store") == stored_digests(tmp_path / "whole")
    assert records_of(tmp_path / "store", "features-chunk") == []


def test_a_signal_stops_an_embedding_which_then_continues(tmp_path: Path) -> None:
    asked = ("embed", "digits", "--set", "backbone.batch=8", "--json", "--store", "store")
    command = Command(*asked, folder=tmp_path)
    deadline = time.monotonic() + 100
    while not records_of(tmp_path / "store", "features-chunk"):
        assert command.process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    command.kill(signal.SIGTERM)
    code, out = command.end()
    assert (code, out) == (75, ""), command.log.read_text()
    assert "same command again" in command.log.read_text()
    again = Command(*asked, folder=tmp_path).result()
    assert again["reused"]["features-chunk"] >= 1
    assert json.dumps(again["splits"]) == '{"train": 1197, "val": 0, "test": 600}'
