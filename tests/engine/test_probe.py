"""A probe is scored by the method's own rule, and learning never hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raycl.config.execution import Execution
from raycl.config.loading import load
from raycl.config.methods import NCM
from raycl.config.spec import Spec
from raycl.engine.identity import RunIdentity
from raycl.engine.run import RunResult, run
from raycl.errors import DataError
from raycl.methods.build import build_method
from raycl.methods.conformance import check_method
from raycl.methods.context import Context
from raycl.methods.method import Method, State
from raycl.store.store import Store
from raycl.streams.stream import Task
from tests.engine.worlds import World, predictions_digests
from tests.streams.made_sets import arrays, save_npz


class Probed:
    """A stream of six classes and a probe of four others, as vectors of one width."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder, noise=1.0)
        self.folder = folder
        self.values = arrays(classes=4, seed=7, noise=1.5, test=25)
        self.file = save_npz(folder / "probe.npz", self.values)

    def tree(self, method: Mapping[str, Any], *, probe: bool = True, **more: Any) -> dict[str, Any]:
        stream = {"kind": "embeddings", "paths": [str(self.world.data)], "tasks": 3}
        named = {"probe": {"kind": "embeddings", "paths": [str(self.file)]}} if probe else {}
        return {"method": dict(method), "stream": stream, **named, **more}

    def run(self, kind: str, store: str = "store", probe: bool = True, **options: Any) -> RunResult:
        experiment = load([self.tree({"kind": kind, **options}, probe=probe)]).experiment
        return run(experiment, Execution(store=str(self.folder / store)))

    def zero_shot_by_hand(self) -> float:
        x, text = (unit(self.values[name].astype(np.float32)) for name in ("test_x", "text"))
        return 100 * float(((x @ text.T).argmax(axis=1) == self.values["test_y"]).mean())


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def probed(tmp_path: Path) -> Probed:
    return Probed(tmp_path)


def test_the_numbers_are_those_computed_by_hand(probed: Probed) -> None:
    result = probed.run("finetune", align={"lr": 0.02})
    values = result.values
    assert values["probe_zero_shot"] == pytest.approx(probed.zero_shot_by_hand())
    # Fine-tuning moves the keys of learnt classes only: among the probe's own, nothing moves.
    assert values["probe"] == [values["probe_zero_shot"]] * 3
    assert values["metrics"]["probe_last"] == values["probe"][-1]
    assert values["metrics"]["probe_drop"] == 0.0

    store = Store.open(str(probed.folder / "store"))
    stream = dict(np.load(probed.world.data, allow_pickle=False))
    text = np.concatenate([stream["text"], probed.values["text"]]).astype(np.float32)
    x = unit(probed.values["test_x"].astype(np.float32))
    for stage in range(3):
        keys = unit(text)
        (spec,) = [r for r in store.records("state") if r.described["task"] == stage]
        residual = store.read(spec)["state.safetensors"]["residual"].numpy()
        seen = [c for task in values["tasks"][: stage + 1] for c in task["classes"]]
        keys[seen] = unit(unit(text)[seen] + residual)
        right = (x @ keys.T).argmax(axis=1) == 6 + probed.values["test_y"]
        assert values["probe_union"][stage] == pytest.approx(100 * right.mean())
    assert values["probe_union"] != values["probe"]


def test_a_gate_ranks_a_probe_alone_by_its_text(probed: Probed) -> None:
    values = probed.run("ncm", unseen="gate").values
    by_hand = probed.zero_shot_by_hand()
    assert values["probe"] == pytest.approx([by_hand] * 3)
    assert values["probe_union"][-1] < by_hand, "the gate takes some for learnt classes"
    assert values["probe_stream"]["name"] == "probe" and values["probe_stream"]["test"] == 100
    assert "probe probe" in values["stream_label"]


def test_a_probe_moves_no_state_and_no_prediction(probed: Probed) -> None:
    without = probed.run("finetune", probe=False)
    with_probe = probed.run("finetune")
    assert with_probe.computed == {"probe": 4, "result": 1}
    assert with_probe.reused["predictions"] == 4
    assert predictions_digests(probed.folder / "store") != []
    apart = probed.run("finetune", store="apart")
    assert predictions_digests(probed.folder / "store") == predictions_digests(
        probed.folder / "apart"
    )
    for name in ("probe", "probe_union", "r_seen", "r_union"):
        assert apart.values[name] == with_probe.values[name]
    assert without.values["setting"] != with_probe.values["setting"]
    assert without.values["probe"] is None and without.values["probe_stream"] is None
    assert "probe_last" not in without.values["metrics"]


def test_keys_know_the_probe_only_where_it_counts(probed: Probed) -> None:
    def names(probe: bool = True, **fields: Any) -> RunIdentity:
        tree = probed.tree({"kind": "ncm"}, probe=probe)
        tree.get("probe", {}).update(fields)
        return RunIdentity.of(load([tree]).experiment)

    plain, probing = names(probe=False), names()
    for part in ("state", "predictions"):
        assert getattr(plain, part)(1).key == getattr(probing, part)(1).key
    assert plain.zero_shot.key == probing.zero_shot.key
    assert plain.partial(0, "align").key == probing.partial(0, "align").key
    assert plain.result.key != probing.result.key
    same = names(tasks=2, order_seed=5, shot_seed=1, shots=3)
    assert same.result.key == probing.result.key and same.probe(0).key == probing.probe(0).key
    save_npz(probed.file, arrays(classes=4, seed=8))
    assert names().result.key != probing.result.key
    assert names().state(0).key == probing.state(0).key
    two, one = (names(paths=[str(probed.file)] * n) for n in (2, 1))
    assert two.result.key != one.result.key


def test_a_stopped_run_continues_to_the_same_probe(probed: Probed) -> None:
    from raycl.errors import StoppedError

    whole = probed.run("joint", store="whole")
    experiment = load([probed.tree({"kind": "joint"})]).experiment
    place = str(probed.folder / "store")
    with pytest.raises(StoppedError):
        run(experiment, Execution(store=place, stop_after=2))
    continued = run(experiment, Execution(store=place))
    assert continued.computed["probe"] == 1
    assert continued.values["probe_union"] == whole.values["probe_union"]


@pytest.mark.parametrize("options", [{}, {"unseen": "none"}])
def test_without_a_rule_there_is_a_reason_and_no_number(
    probed: Probed, options: dict[str, str]
) -> None:
    values = probed.run("ncm", **options).values
    assert values["probe"] == values["probe_union"] == [None] * 3
    assert values["probe_zero_shot"] is not None
    for name in ("probe_last", "probe_drop"):
        assert values["metrics"][name] is None and "no rule" in values["why_null"][name]


def test_a_probe_without_text_is_told(probed: Probed) -> None:
    probed.values["text_has"][2] = False
    save_npz(probed.file, probed.values)
    values = probed.run("ncm", unseen="gate").values
    assert values["probe_zero_shot"] is None
    assert "no text vector" in values["why_null"]["probe_last"]


def test_a_probe_of_another_width_is_refused(probed: Probed) -> None:
    narrow = {
        name: value[:, :5] if name.endswith(("_x", "text")) else value
        for name, value in probed.values.items()
    }
    save_npz(probed.file, narrow)
    with pytest.raises(DataError, match="another width"):
        probed.run("ncm", unseen="gate")


class Rigid(Method[Spec]):
    """Takes its table over whole, and so forgets that there may be more classes."""

    table = torch.empty(0)

    def learn(self, task: Task, context: Context) -> None:
        self.table = self.setting.text.clone()

    def seen_scores(self, x: Tensor) -> Tensor:
        return self.union_scores(x)[:, list(self.seen)]

    def union_scores(self, x: Tensor) -> Tensor:
        return x @ self.table.T

    def state(self) -> State:
        return {"table": self.table}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.table = state["table"].clone()


def test_conformance_finds_a_state_that_fits_no_more_classes() -> None:
    what = "a state fits a setting with more classes"
    faults = {f.what: f.fault for f in check_method(lambda s: Rigid(Spec(), s)) if not f.ok}
    assert set(faults) == {what} and "expected" in str(faults[what])
    gated = check_method(lambda s: build_method(NCM(unseen="gate"), s))
    assert [f.fault for f in gated if f.what == what] == [None]
