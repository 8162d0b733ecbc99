"""Runs: the same numbers however they are reached, and nothing computed twice."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from raycl.compute.stopping import StopRequest
from raycl.config.clts import CLTS
from raycl.config.methods import BUILT_IN, kind_of
from raycl.engine.identity import RunIdentity
from raycl.engine.run import RunResult, run
from raycl.errors import ConfigError, DataError, InterruptedByUser, MethodError, StoppedError
from raycl.observe.events import Computed, Event, Reused, Waiting, Warned
from raycl.store.store import Store
from tests.engine.worlds import World, numbers, predictions_digests
from tests.streams.made_sets import arrays, save_npz, save_parquet

METHODS = [kind_of(spec) for spec in BUILT_IN if spec is not CLTS]
"""Those that learn from given vectors; CLTS wants images."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_learns_and_a_second_one_computes_nothing(world: World, method: str) -> None:
    first = world.run(method)
    assert first.computed["result"] == 1 and first.computed["state"] == 3
    assert first.metrics["last_pooled"] > (30 if method == "finetune" else 70)
    second = world.run(method)
    assert second.computed == {} and second.reused == {"result": 1}
    assert second.values == first.values


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_stopped_run_continues_to_the_same_numbers(
    world: World, tmp_path: Path, method: str, stop_after: int
) -> None:
    whole = world.run(method, store=str(tmp_path / "whole"))
    with pytest.raises(StoppedError, match=f"after task {stop_after} of 3") as caught:
        world.run(method, stop_after=stop_after)
    assert "same command again" in str(caught.value)
    continued = world.run(method)
    assert continued.computed["state"] == 3 - stop_after
    assert numbers(continued) == numbers(whole)
    assert predictions_digests(world.store) == predictions_digests(tmp_path / "whole")


def test_stopping_after_the_last_task_is_done(world: World) -> None:
    assert world.run("ncm", stop_after=3).computed["result"] == 1


class StopInside:
    """Asks for a stop once so many events of a kind have passed."""

    def __init__(self, stop: StopRequest, after: int, signal: str | None) -> None:
        self.stop, self.left, self.signal = stop, after, signal

    def __call__(self, event: Event) -> None:
        self.left -= type(event).__name__ == "Progress"
        if self.left <= 0:
            self.stop.request(self.signal)


@pytest.mark.parametrize(
    ("signal", "error"), [("SIGTERM", StoppedError), ("SIGINT", InterruptedByUser)]
)
def test_a_stop_within_a_task_loses_no_step(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signal: str,
    error: type[Exception],
) -> None:
    monkeypatch.setattr("raycl.methods.context.TELL_EVERY_SECONDS", 0.0)
    whole = world.run("joint", store=str(tmp_path / "whole"))
    experiment, execution = _asked(world, "joint")
    stops = 0
    while True:
        stop = StopRequest()
        try:
            result = run(experiment, execution, StopInside(stop, 25, signal), stop)
            break
        except error:
            stops += 1
    assert stops >= 3
    assert numbers(result) == numbers(whole)
    assert predictions_digests(world.store) == predictions_digests(tmp_path / "whole")
    assert list(Store.open(str(world.store)).records("partial")) == []


def _asked(world: World, method: str) -> tuple[Any, Any]:
    from raycl.config.execution import Execution
    from raycl.config.experiment import Experiment
    from raycl.config.loading import load

    stream = {"kind": "embeddings", "paths": [str(world.data)], "tasks": 3}
    experiment: Experiment = load([{"method": {"kind": method}, "stream": stream}]).experiment
    return experiment, Execution(store=str(world.store))


def test_npz_and_parquet_give_the_same_numbers(world: World, tmp_path: Path) -> None:
    npz = world.run("proto_fusion")
    world.data = save_parquet(tmp_path / "set.parquet", arrays())
    parquet = world.run("proto_fusion")
    assert parquet.computed["result"] == 1, "other bytes, another key"
    for name in ("r_seen", "r_union", "zero_shot", "metrics"):
        assert parquet.values[name] == npz.values[name]


def test_a_copied_file_is_the_same_data(world: World, tmp_path: Path) -> None:
    world.run("ncm")
    world.data = Path(shutil.copy(world.data, tmp_path / "copy.npz"))
    assert world.run("ncm").computed == {}


def test_the_result_says_what_it_is(world: World) -> None:
    values = world.run("finetune", "method.loss=local", seed=3).values
    assert values["label"] == "finetune(loss=local)"
    assert values["seeds"] == {"order": 3, "shot": 3, "val": 3, "init": 3}
    assert values["protocol"] == "class-incremental"
    assert [len(task["classes"]) for task in values["tasks"]] == [2, 2, 2]
    assert {"raycl", "python", "torch", "numpy"} <= set(values["versions"])
    assert values["experiment"]["method"]["align"]["lr"] == 1e-3
    assert values["state_mib"] * 2**20 == 6 * 16 * 4
    payloads = Store.open(str(world.store)).record(values["key"]).payloads
    assert set(payloads) == {"result.json", "splits.parquet"}


@pytest.mark.parametrize("kind", ["result", "predictions", "state"])
def test_a_flipped_byte_is_found_named_and_recomputed(world: World, kind: str) -> None:
    first = world.run("slda")
    store = Store.open(str(world.store))
    records = [r for r in store.records(kind) if "zero-shot" not in r.key]
    if kind != "result":
        # As if the run had been interrupted before its result was written.
        store.discard(first.key)
    name, payload = next(iter(records[0].payloads.items()))
    file = world.store / "artefacts" / records[0].key / payload.file
    flipped = bytearray(file.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    file.write_bytes(flipped)
    if kind == "state":
        for record in [r for r in store.records("predictions") if "zero-shot" not in r.key]:
            store.discard(record.key)
    events: list[Event] = []
    again = world.run("slda", observer=events.append)
    assert numbers(again) == numbers(first)
    assert again.computed[kind] >= 1
    assert any(isinstance(e, Warned) and name in e.message for e in events)


def test_two_processes_of_one_experiment_share_the_work(world: World) -> None:
    results: list[RunResult] = []
    threads = [
        threading.Thread(target=lambda: results.append(world.run("finetune"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(r.computed.get("result", 0) for r in results) == 1
    assert numbers(results[0]) == numbers(results[1])


def test_a_wait_for_another_process_can_be_stopped(world: World) -> None:
    experiment, execution = _asked(world, "ncm")
    stop = StopRequest()

    def on_event(event: Event) -> None:
        if isinstance(event, Waiting):
            stop.request("SIGTERM")

    held = Store.open(str(world.store)).lease(RunIdentity.of(experiment).result)
    with held, pytest.raises(StoppedError, match="waiting for result/ncm"):
        run(experiment, execution, on_event, stop)
    assert run(experiment, execution).computed["result"] == 1


def test_data_that_changes_while_a_run_waits_is_not_taken_for_the_old(world: World) -> None:
    experiment, execution = _asked(world, "ncm")
    held = Store.open(str(world.store)).lease(RunIdentity.of(experiment).result)
    held.__enter__()

    def on_event(event: Event) -> None:
        if isinstance(event, Waiting):
            save_npz(world.data, arrays(seed=5))
            held.__exit__(None, None, None)

    with pytest.raises(DataError, match="not what this run was asked for"):
        run(experiment, execution, on_event)
    assert list(Store.open(str(world.store)).records("result")) == []


def test_a_blocked_log_costs_a_warning_and_not_the_run(world: World) -> None:
    world.store.mkdir()
    (world.store / "logs").touch()
    events: list[Event] = []
    assert world.run("ncm", observer=events.append).computed["result"] == 1
    assert any(isinstance(e, Warned) and "no longer logged" in e.message for e in events)


def test_a_stop_is_seen_between_tasks_that_are_learnt_again(world: World) -> None:
    with pytest.raises(StoppedError):
        world.run("ncm", stop_after=2)
    store = Store.open(str(world.store))
    for record in list(store.records("state")):
        store.discard(record.key)
    experiment, execution = _asked(world, "ncm")
    stop = StopRequest()

    def on_event(event: Event) -> None:
        if isinstance(event, Computed) and event.kind == "state":
            stop.request("SIGTERM")

    with pytest.raises(StoppedError, match="before task 2"):
        run(experiment, execution, on_event, stop)


def test_a_method_never_sees_the_test(world: World) -> None:
    file = Path(world.pooled())
    text = file.read_text().replace(
        "def learn(self, task, context):\n",
        "def learn(self, task, context):\n        assert len(task.test) == 0\n",
    )
    file.write_text(text)
    assert world.run(str(file)).metrics["last_pooled"] > 70


def test_a_fault_in_a_users_file_is_told_with_its_line(world: World) -> None:
    file = Path(world.pooled())
    text = file.read_text().replace(
        "def learn(self, task, context):\n",
        "def learn(self, task, context):\n        undefined_name\n",
    )
    file.write_text(text)
    line = text.splitlines().index("        undefined_name") + 1
    with pytest.raises(MethodError, match=r"Pooled\.learn failed: NameError") as caught:
        world.run(str(file))
    assert f"pooled.py, line {line}" in str(caught.value)


BREACHES = {
    "def state(self):\n        return None": "state\\(\\) must give a mapping",
    "def state(self):\n        return {'x': [1]}": "must be a dense tensor",
    "def state(self):\n        return {'__metadata__': self.mean}": "cannot name a tensor",
    "def seen_scores(self, x):\n        return x": "seen_scores must give a tensor of shape",
    "def seen_scores(self, x):\n        raise SystemExit(0)": "called sys.exit",
    "def __init__(self):\n        pass": "cannot be built",
}


@pytest.mark.parametrize("body", BREACHES)
def test_a_breach_of_the_contract_is_named(world: World, body: str) -> None:
    file = Path(world.pooled())
    file.write_text(file.read_text() + f"\n    {body}\n")
    with pytest.raises(MethodError, match=BREACHES[body]):
        world.run(str(file))


def test_zero_shot_predictions_are_shared_by_methods(world: World) -> None:
    world.run("ncm")
    events: list[Event] = []
    world.run("slda", observer=events.append)
    assert any(isinstance(e, Reused) and "zero-shot" in e.key for e in events)


def test_a_method_without_text_is_told_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    values = arrays()
    values["text_has"][3] = False
    save_npz(world.data, values)
    with pytest.raises(DataError, match="needs a text vector for every class") as caught:
        world.run("zero_shot")
    assert "stream.classes=with_text" in str(caught.value)
    assert "1 of 6 classes have none: thing 3" in str(caught.value)
    kept = world.run("zero_shot", "stream.classes=with_text")
    assert len(kept.values["class_names"]) == 5
    ncm = world.run("ncm").values
    assert ncm["metrics"]["transfer"] is None and "text" in ncm["why_null"]["transfer"]
    assert ncm["zero_shot"] == [None] * 3


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("method", METHODS)
def test_an_empty_class_warns_and_does_not_stop_the_run(
    world: World, method: str, split: str
) -> None:
    values = arrays()
    keep = values[f"{split}_y"] != 2
    values[f"{split}_x"], values[f"{split}_y"] = (
        values[f"{split}_x"][keep],
        values[f"{split}_y"][keep],
    )
    save_npz(world.data, values)
    result = world.run(method, "stream.tasks=6")
    assert any("thing 2" in warning for warning in result.values["warnings"])
    assert result.metrics["last_pooled"] is not None
    stage = next(i for i, t in enumerate(result.values["tasks"]) if t["classes"] == [2])
    if split == "test":
        assert result.values["r_seen"][5][stage] is None
        assert result.metrics["forgetting"] is None or stage == 5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("setting", ["stream.tasks=6", "stream.tasks=1", "stream.shots=1"])
def test_small_tasks_work(world: World, method: str, setting: str) -> None:
    assert world.run(method, setting).metrics["last_pooled"] > 15


def test_divergence_is_told(world: World) -> None:
    with pytest.raises(MethodError, match="diverged in task 1") as caught:
        world.run("finetune", "method.align.weight_decay=1e30")
    assert "lower method.align.lr" in str(caught.value)


def test_a_local_pool_takes_no_address(world: World) -> None:
    with pytest.raises(ConfigError, match="this process only"):
        world.run("ncm", address="127.0.0.1:6379")


def test_a_users_method_runs_like_any_other(world: World) -> None:
    result = world.run(world.pooled())
    assert result.metrics["last_pooled"] > 70
    assert world.run(world.pooled()).computed == {}
    assert result.values["r_union"][0] == [result.values["r_seen"][0][0], None, None]


@pytest.mark.parametrize(
    ("text", "error", "part"),
    [
        ("x = 1\n", ConfigError, "one class that derives from raycl.Method"),
        ("x = 1\n\ndef broken(:\n", MethodError, "see line 3"),
        ("x = 1\nraise SystemExit(0)\n", MethodError, "see line 2"),
        ("import nothing_of_the_kind\n", MethodError, "nothing_of_the_kind"),
        (
            "from raycl import Method\nclass M(Method):\n    def state(self): return {}\n",
            ConfigError,
            "does not define learn",
        ),
    ],
)
def test_a_broken_users_file_is_named(
    world: World, text: str, error: type[Exception], part: str
) -> None:
    file = world.folder / "mine.py"
    file.write_text(text)
    with pytest.raises(error, match=part):
        world.run(str(file))
