"""A plain run told to TensorBoard: computed, stopped and continued, or found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raycl import Execution, Experiment, run
from raycl.config.loading import check
from raycl.errors import ConfigError, StoppedError
from raycl.observe.events import Event, Warned
from raycl.observe.sinks import telling
from tests.observe.followed_runs import scalars
from tests.streams.made_sets import arrays, save_npz


def made(folder: Path) -> Experiment:
    data = folder / "set.npz"
    if not data.exists():
        save_npz(data, arrays(train=20, noise=1.0))
    stream: dict[str, Any] = {"kind": "embeddings", "paths": [str(data)], "tasks": 3}
    return Experiment.model_validate({"method": {"kind": "slda"}, "stream": stream})


def told(folder: Path, store: str = "store", **more: Any) -> Execution:
    return Execution(store=str(folder / store), log_to=("tensorboard",), **more)


def accuracies(store: Path) -> list[tuple[int, float]]:
    (folder,) = (store / "logs").iterdir()
    return [(step, value) for name, step, value in scalars(folder) if name == "last_pooled"]


def test_a_run_is_told_by_task_and_once_though_it_was_stopped(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        run(made(tmp_path), told(tmp_path, stop_after=1))
    assert len(accuracies(tmp_path / "store")) == 1
    result = run(made(tmp_path), told(tmp_path))
    run(made(tmp_path), told(tmp_path))
    stages = [pytest.approx(value) for value in result.metrics["stage_pooled"]]
    assert sorted(accuracies(tmp_path / "store")) == list(zip((1, 2, 3), stages, strict=True))
    (folder,) = (tmp_path / "store" / "logs").iterdir()
    finals = {name: value for name, _, value in scalars(folder) if name.startswith("final/")}
    assert finals["final/forgetting"] == pytest.approx(result.metrics["forgetting"])
    assert finals["final/state_mib"] == pytest.approx(result.values["state_mib"])


def test_a_run_that_was_found_is_told_as_if_it_were_run(tmp_path: Path) -> None:
    untold = run(made(tmp_path), Execution(store=str(tmp_path / "store")))
    run(made(tmp_path), told(tmp_path))
    stages = [pytest.approx(value) for value in untold.metrics["stage_pooled"]]
    assert [value for _, value in accuracies(tmp_path / "store")] == stages


def test_what_is_told_changes_no_number_and_no_key(tmp_path: Path) -> None:
    followed = run(made(tmp_path), told(tmp_path))
    plain = run(made(tmp_path), Execution(store=str(tmp_path / "plain")))
    assert (followed.key, followed.metrics) == (plain.key, plain.metrics)


def test_a_sink_that_fails_costs_the_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, subject: object) -> None:
        raise OSError("no space left on the server")

    monkeypatch.setattr(telling, "_opened", broken)
    heard: list[Event] = []
    result = run(made(tmp_path), told(tmp_path), heard.append)
    warned = [event.message for event in heard if isinstance(event, Warned)]
    assert result.metrics["last_pooled"] > 0
    assert len(warned) == 1 and "no space left" in warned[0]


def test_a_sink_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"log_to.*wandbb"):
        check(Execution, {"log_to": ["wandbb"]})
