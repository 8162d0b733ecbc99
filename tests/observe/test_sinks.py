"""Sinks: told once, harmless when they fail, the same run when it continues."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from raycl.errors import ConfigError
from raycl.observe.events import TaskDone, TaskMeasured
from raycl.observe.sinks import telling
from raycl.observe.sinks.sink import How, Numbers, Subject
from raycl.observe.sinks.telling import TOLD, Sinks, check_sinks
from tests.observe.followed_runs import offline_runs, scalars

NAN = float("nan")


def subject(folder: Path) -> Subject:
    config = {"method": {"kind": "slda", "options": {}}, "seed": 1}
    return Subject("slda-1", "slda on digits", "raycl", config, folder)


class Recorder:
    """Stands in a sink's place, and fails at what it was told to fail at."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.heard: list[object] = []

    def tell(self, done: int, values: Numbers) -> None:
        if self.fails == "tell":
            raise OSError("the server\nis gone")
        self.heard.append((done, dict(values)))

    def close(self, done: int, finals: Numbers, how: How) -> None:
        if self.fails == "close":
            raise OSError("the server is gone")
        self.heard.append((how, dict(finals)))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Recorder]]:
    """Puts recorders in the places of all sinks; returns them by their names."""

    def put(**fails: str) -> dict[str, Recorder]:
        made: dict[str, Recorder] = {}

        def opening(name: str, subject: Subject) -> Recorder:
            if fails.get(name) == "open":
                raise RuntimeError("no such server")
            return made.setdefault(name, Recorder(fails.get(name, "")))

        monkeypatch.setattr(telling, "_opened", opening)
        return made

    return put


def silent(words: str) -> None:
    raise AssertionError(words)


def test_a_task_is_told_once_however_often_the_run_is_started(
    tmp_path: Path, opened: Callable[..., dict[str, Recorder]]
) -> None:
    first = opened()
    sinks = Sinks(["wandb"], subject(tmp_path), silent)
    assert not first, "nothing is opened before there is news"
    sinks(TaskDone(0, 3, 2, 50.0, 1.0))
    sinks(TaskMeasured(0, 3, {"last_pooled": 50.0, "transfer": None, "ece_seen": NAN}))
    sinks.leave("stopped")
    assert first["wandb"].heard == [(1, {"last_pooled": 50.0}), ("stopped", {})]
    second = opened()
    sinks = Sinks(["wandb"], subject(tmp_path), silent)
    sinks(TaskMeasured(0, 3, {"last_pooled": 50.0}))
    sinks(TaskMeasured(1, 3, {"last_pooled": 40.0}))
    sinks.finish({"last_pooled": 40.0, "transfer": None})
    assert second["wandb"].heard == [(2, {"last_pooled": 40.0}), ("finished", {"last_pooled": 40})]
    third = opened()
    sinks = Sinks(["wandb"], subject(tmp_path), silent)
    sinks(TaskMeasured(1, 3, {"last_pooled": 40.0}))
    sinks.finish({"last_pooled": 40.0})
    assert not third and not sinks.waiting, "a finished run is no news"


@pytest.mark.parametrize("at", ["open", "tell", "close"])
def test_a_sink_that_fails_is_told_no_more_and_harms_nobody(
    tmp_path: Path, opened: Callable[..., dict[str, Recorder]], at: str
) -> None:
    made, warned = opened(mlflow=at), list[str]()
    sinks = Sinks(["mlflow", "wandb"], subject(tmp_path), warned.append)
    for task in range(3):
        sinks(TaskMeasured(task, 3, {"last_pooled": 50.0}))
    sinks.finish({"last_pooled": 50.0})
    assert len(warned) == 1 and "no longer told to mlflow" in warned[0] and "\n" not in warned[0]
    assert len(made["wandb"].heard) == 4


@pytest.mark.parametrize("text", ["", "{", "[]", '{"wandb": null}', '{"wandb": "x"}'])
def test_a_broken_note_of_what_was_told_is_none(
    tmp_path: Path, opened: Callable[..., dict[str, Recorder]], text: str
) -> None:
    made, about = opened(), subject(tmp_path)
    about.folder.mkdir(parents=True)
    (about.folder / TOLD).write_text(text)
    Sinks(["wandb"], about, silent).tell(1, {"last_pooled": 1.0})
    assert made["wandb"].heard == [(1, {"last_pooled": 1.0})]


def test_a_package_that_is_missing_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"mlflow(?s:.*)pip install mlflow, or leave"):
        check_sinks(["mlflow"])
    check_sinks([])


def twice(name: str, folder: Path) -> None:
    """A run of three tasks that is stopped after the second, and continued."""
    sinks = Sinks([name], subject(folder), silent)
    for task in range(2):
        sinks(TaskMeasured(task, 3, {"last_pooled": 90.0 - task}))
    sinks.leave("stopped")
    sinks = Sinks([name], subject(folder), silent)
    for task in range(3):
        sinks(TaskMeasured(task, 3, {"last_pooled": 90.0 - task}))
    sinks.finish({"last_pooled": 88.0})


def test_tensorboard_holds_each_task_once(tmp_path: Path) -> None:
    twice("tensorboard", tmp_path)
    found = scalars(tmp_path / "slda-1")
    assert sorted(found) == [
        ("final/last_pooled", 3, 88.0),
        ("last_pooled", 1, 90.0),
        ("last_pooled", 2, 89.0),
        ("last_pooled", 3, 88.0),
    ]


def test_wandb_continues_the_same_run_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    twice("wandb", tmp_path)
    first, second = offline_runs(tmp_path)
    assert first["id"] == second["id"] == "slda-1" and first["group"] == "raycl"
    assert {step: v["last_pooled"] for step, v in first["steps"].items()} == {1: 90.0, 2: 89.0}
    assert {step: v["last_pooled"] for step, v in second["steps"].items()} == {3: 88.0}
    assert (first["summary"]["state"], second["summary"]["state"]) == ("stopped", "finished")
    assert second["summary"]["final/last_pooled"] == 88.0


@pytest.mark.filterwarnings("ignore")  # of its own database
def test_mlflow_continues_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    twice("mlflow", tmp_path)
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("raycl")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["method.kind"] == "slda"
    history = client.get_metric_history(run.info.run_id, "last_pooled")
    assert [(m.step, m.value) for m in history] == [(1, 90.0), (2, 89.0), (3, 88.0)]
    assert run.data.metrics["final.last_pooled"] == 88.0
