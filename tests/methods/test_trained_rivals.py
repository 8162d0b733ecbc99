"""Linear probe, SLCA, WiSE-FT, RAPF, CoOp with replay: what moves, and what it brings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from raycl.config.generators import GaussianGenerator
from raycl.config.loading import load
from raycl.config.methods import MappedTokens, RealReplay
from raycl.config.rivals import RAPF, SLCA, LinearProbe, WiSEFT
from raycl.errors import DataError, MethodError
from raycl.methods import conformance
from raycl.methods.build import build_method
from raycl.methods.parts.keys import unit
from raycl.methods.rapf import RAPFMethod, fused, hinge
from raycl.methods.slca import SLCAMethod
from raycl.methods.wise_ft import WiSEFTMethod
from raycl.streams.stream import Task
from tests.methods.made_tasks import (
    CARS,
    WIDTH,
    accuracy,
    cars,
    learn,
    made_setting,
    made_tasks,
)

CUT = ((5, 3), (0,), (4, 1, 2))
DIAGONAL = GaussianGenerator()


@pytest.mark.parametrize(
    "spec",
    [
        LinearProbe(epochs=2),
        LinearProbe(data="task", epochs=2, weight_decay=0.1, unseen="gate"),
        SLCA(epochs=2, align_epochs=2, per_class=8),
        SLCA(generator=DIAGONAL, epochs=2, align_epochs=2, logit_norm=None, unseen="gate"),
        WiSEFT(epochs=2),
        WiSEFT(epochs=2, weight=0.3, loss="seen"),
        RAPF(epochs=2),
        RAPF(generator=DIAGONAL, epochs=2, start="random", threshold=2.0, fuse=False),
        RAPF(epochs=2, separate=False, keep_bias=0.0),
    ],
    ids=repr,
)
def test_they_hold_the_contract(spec: Any) -> None:
    findings = conformance.check_method(lambda setting: build_method(spec, setting))
    assert {f.what: f.fault for f in findings if not f.ok} == {}


def vectors_of(tasks: list[Task]) -> Tensor:
    return torch.cat([task.test.x for task in tasks])


def test_a_probe_of_all_data_beats_probes_of_tasks() -> None:
    setting = made_setting()
    tasks = made_tasks(setting, CUT, train=30, noise=0.5)
    budget: dict[str, Any] = {"epochs": 40, "lr": 0.01, "batch": 16}
    every = learn(build_method(LinearProbe(**budget), setting), tasks)
    alone = learn(build_method(LinearProbe(data="task", **budget), setting), tasks)
    assert accuracy(every, tasks) > accuracy(alone, tasks) + 0.02
    assert "x.0" in every.state() and "x.0" not in alone.state()
    assert every.trainable_parameters == 6 * (WIDTH + 1)


def test_a_task_leaves_the_rows_of_others_alone() -> None:
    setting = made_setting()
    tasks = made_tasks(setting, CUT)
    spec = LinearProbe(data="task", epochs=3)
    two, three = (learn(build_method(spec, setting), tasks[:n]).state() for n in (2, 3))
    assert torch.equal(three["weight"][:3], two["weight"])
    assert three["weight"][3:].any() and two["weight"][:2].any()
    assert not two["weight"][2].any()  # one class among itself has nothing to learn


def test_alignment_makes_rows_comparable() -> None:
    setting = made_setting()
    tasks = made_tasks(setting, CUT, train=30, noise=0.5)
    budget: dict[str, Any] = {"epochs": 40, "lr": 0.01, "batch": 32, "per_class": 64}
    method = learn(build_method(SLCA(align_epochs=10, **budget), setting), tasks)
    assert isinstance(method, SLCAMethod)
    aligned = accuracy(method, tasks)
    method.aligned = method.own
    assert aligned > accuracy(method, tasks) + 0.02


def test_every_stage_aligns_from_where_tasks_left_their_rows() -> None:
    setting = made_setting()
    tasks = made_tasks(setting, CUT)
    spec = SLCA(epochs=3, align_epochs=2, per_class=16)
    two, three = (learn(build_method(spec, setting), tasks[:n]).state() for n in (2, 3))
    own = [name for name in two if name.startswith("own.") or ".bank." in name]
    assert own and all(torch.equal(two[name], three[name]) for name in own)
    assert not torch.equal(three["aligned.weight"][:3], two["aligned.weight"])


def test_logits_of_equal_norm_forget_the_scale_of_all() -> None:
    setting = made_setting()
    tasks = made_tasks(setting, CUT)
    method = learn(build_method(SLCA(epochs=1, align_epochs=1, per_class=4), setting), tasks)
    assert isinstance(method, SLCAMethod)
    logits = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    task_of = torch.tensor([0, 0, 1, 2, 2, 2])
    found = method._of_equal_norm(logits, task_of)
    norms = [logits[:, task_of == t].norm(dim=1) for t in range(3)]
    expected = logits / torch.stack(norms).mean(dim=0)[:, None] / 0.1
    assert torch.allclose(found, expected, rtol=1e-3)
    assert torch.allclose(method._of_equal_norm(7 * logits, task_of), found, rtol=1e-3)


def test_between_the_zero_shot_and_the_trained_key() -> None:
    setting = made_setting()
    tasks = made_tasks(setting, CUT)
    x = vectors_of(tasks)
    methods = {
        w: learn(build_method(WiSEFT(weight=w, epochs=5, lr=0.01), setting), tasks)
        for w in (0.0, 0.5, 1.0)
    }
    seen = list(methods[0.0].seen)
    assert torch.allclose(methods[0.0].seen_scores(x), setting.zero_shot(x)[:, seen], atol=1e-4)
    trained = methods[1.0]
    assert isinstance(trained, WiSEFTMethod)
    keys = trained.head.all_keys()
    assert torch.allclose(trained.union_scores(x), 100 * unit(x) @ keys.T, atol=1e-3)
    middle = 100 * unit(x) @ unit((keys + setting.text) / 2).T
    assert torch.allclose(methods[0.5].seen_scores(x), middle[:, seen], atol=1e-3)
    assert not torch.allclose(keys, setting.text, atol=1e-2)


def test_a_weight_follows_how_good_the_text_is() -> None:
    def weight(noise: float) -> float:
        setting = made_setting(noise=noise)
        spec = WiSEFT(epochs=20, lr=0.01, batch=8)
        method = learn(build_method(spec, setting), made_tasks(setting, CUT, noise=1.0))
        assert isinstance(method, WiSEFTMethod)
        return method.weight

    assert weight(0.0) < weight(10.0)


def test_choosing_does_not_move_what_is_trained() -> None:
    """The trial on fewer samples leaves no trace in the residual."""
    setting = made_setting()
    tasks = made_tasks(setting, CUT)
    chosen = learn(build_method(WiSEFT(epochs=3), setting), tasks).state()
    fixed = learn(build_method(WiSEFT(epochs=3, weight=0.5), setting), tasks).state()
    assert torch.equal(chosen["residual"], fixed["residual"]) and chosen["right"].any()


def test_an_identity_without_training_is_the_zero_shot_model() -> None:
    setting = made_setting()
    method = build_method(RAPF(), setting)
    x = torch.randn(9, WIDTH, generator=torch.Generator().manual_seed(0))
    found = method.union_scores(x)
    assert found is not None and torch.allclose(found, setting.zero_shot(x), atol=1e-4)


def test_fusion_takes_the_new_where_it_moved_most() -> None:
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randn(8, 8, generator=generator) for _ in range(2))
    assert torch.allclose(fused(old, new, bias=1.0), new, atol=1e-5)
    assert torch.equal(fused(old, old, bias=0.0), old)
    mixed = fused(old, new, bias=0.0)
    u, s, v = torch.linalg.svd(old.double())
    before, after = s[:, None] * v, u.T @ new.double()
    share = (u.T @ mixed.double() - before) / (after - before)
    moved = (after - before).abs()
    assert torch.allclose(share, moved / moved.max(), atol=1e-4)


def test_the_hinge_is_that_of_every_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    cosines = torch.rand(6, 4, generator=generator)
    target = torch.tensor([0, 1, 2, 0, 3, 1])
    near = torch.zeros(4, 4, dtype=torch.bool)
    near[0, 2] = near[0, 3] = near[1, 3] = True
    terms = [
        max(0.0, 0.1 - float(row[t]) + float(row[n]))
        for row, t in zip(cosines, target.tolist(), strict=True)
        for n in range(4)
        if near[t, n]
    ]
    assert float(hinge(cosines, target, near, 0.1)) == pytest.approx(sum(terms) / len(terms))
    assert float(hinge(cosines, target, near & False, 0.1)) == 0.0


def test_neighbours_are_an_old_class_and_a_new_one_near_it() -> None:
    setting = made_setting()
    text = setting.text.clone()
    text[4] = unit(text[5] + 0.1 * text[0])  # 4 is new when 5 is old
    text[3] = unit(text[5] + 0.1 * text[1])  # 3 and 5 are of one task
    method = build_method(RAPF(threshold=0.3), replace(setting, text=text))
    assert isinstance(method, RAPFMethod)
    method.seen = (5, 3, 0, 4, 1, 2)
    near = method._neighbours((5, 3, 0), (4, 1, 2))
    assert near is not None
    pairs = {(method.seen[a], method.seen[b]) for a, b in near.nonzero().tolist()}
    assert pairs == {(5, 4), (3, 4)}
    method.seen = (5, 3, 0)
    assert method._neighbours((5, 3), (0,)) is None


def test_replay_keeps_what_fine_tuning_of_one_adapter_loses() -> None:
    setting = made_setting(noise=2.0)
    tasks = made_tasks(setting, CUT, train=30)
    budget: dict[str, Any] = {"epochs": 30, "lr": 0.01, "batch": 16, "fuse": False}
    without = replace_draws(setting, tasks, budget)
    whole = learn(build_method(RAPF(**budget), setting), tasks)
    assert accuracy(whole, tasks) > without + 0.05
    assert not any(name.startswith("x") for name in whole.state())


def replace_draws(setting: Any, tasks: list[Task], budget: dict[str, Any]) -> float:
    """The accuracy of the same adapter without replay: the generators are taken away."""
    method = build_method(RAPF(**budget), setting)
    for task in tasks:
        learn(method, tasks[: task.index + 1], start=task.index)
        assert isinstance(method, RAPFMethod)
        method.generators.fitted = []
    return accuracy(method, tasks)


def test_divergence_is_told_with_the_rate() -> None:
    setting = made_setting()
    for spec in (LinearProbe(lr=1e38), RAPF(lr=1e38)):
        with pytest.raises(MethodError, match=r"diverged in task 1(.|\n)*method\.lr"):
            learn(build_method(spec, setting), made_tasks(setting, CUT))


def test_text_is_needed_by_those_that_use_it() -> None:
    setting = made_setting()
    none = replace(
        setting, text=torch.zeros_like(setting.text), has_text=torch.zeros_like(setting.has_text)
    )
    for spec in (WiSEFT(), RAPF()):
        with pytest.raises(DataError, match="text vector"):
            build_method(spec, none)
    tasks = made_tasks(setting, CUT)
    for plain in (LinearProbe(lr=0.01), SLCA(lr=0.01, per_class=32)):
        assert accuracy(learn(build_method(plain, none), tasks), tasks) > 0.7


def test_coop_with_replay_is_a_recipe_of_real_replay() -> None:
    found = load(
        [
            {"stream": {"kind": "digits"}},
            {
                "method": {
                    "kind": "real_replay",
                    "memory": {"kind": "real", "per_class": 16},
                    "prompt": {"kind": "tokens", "tokens": 16, "shared": True, "mapped": False},
                    "align": {"lr": 0.002, "epochs": 50, "batch": 32},
                }
            },
        ]
    ).experiment.method
    assert isinstance(found, RealReplay)
    assert found.prompt == MappedTokens(tokens=16, shared=True, mapped=False)


@pytest.mark.skipif(not CARS.exists(), reason="the real embedding sets are not here")
def test_they_learn_real_vectors() -> None:
    """Twenty classes of Cars in two tasks."""
    setting, tasks = cars(classes=20, tasks=2)
    x, y = vectors_of(tasks), torch.cat([task.test.y for task in tasks])
    text = float((setting.zero_shot(x).argmax(dim=1) == y).float().mean())

    def found(spec: Any) -> float:
        return accuracy(learn(build_method(spec, setting), tasks), tasks)

    assert found(SLCA()) > text + 0.05
    assert found(LinearProbe()) > found(LinearProbe(data="task")) + 0.02
    assert found(WiSEFT()) > text
    assert found(RAPF()) > text + 0.02
