"""Auto-Seed as a method: it learns, nothing leaks, memory holds its limit, stops change nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from raycl.config.autoseed import Adapt, AutoSeed, SeedUpdate
from raycl.config.loading import check
from raycl.config.methods import ZeroShot
from raycl.config.streams import EmbeddingsStream, Validation
from raycl.errors import ConfigError, DataError, MethodError, StoppedError
from raycl.methods import conformance
from raycl.methods.autoseed import AutoSeedMethod
from raycl.methods.build import build_method
from raycl.methods.method import Setting, State
from raycl.methods.parts.keys import unit
from raycl.methods.parts.seed_diagnosis import seed_figures
from raycl.methods.parts.seeds import (
    Seeds,
)
from raycl.streams.stream import Samples, build, read_source
from tests.engine.worlds import World
from tests.methods.made_seeds import (
    CLASSES,
    CPU,
    SCALE,
    TASKS,
    WIDTH,
    accuracy,
    learn,
    made,
    noise,
    same,
    short,
)

CARS = Path(os.environ.get("RAYCL_DATA", "")) / "clip_vitb32" / "stanford_cars.npz"


@pytest.mark.parametrize(
    "spec",
    [
        short(),
        short(order="seeds_last", unseen="none"),
        short(consistency=False, meta_update=False),
        short(gradient_conditioning=False, pruning=False),
        short(memory=3, update=SeedUpdate(steps=3, inner_steps=2), anchor_image=0.0),
        short(per_class=1, fusion=1.0),
        short(update=SeedUpdate(steps=0)),
    ],
    ids=repr,
)
def test_it_holds_the_contract(spec: AutoSeed) -> None:
    findings = conformance.check_method(lambda setting: build_method(spec, setting))
    assert {f.what: f.fault for f in findings if not f.ok} == {}


def test_it_learns_and_remembers() -> None:
    setting, tasks = made(off=2.5, spread=1.0)
    spec = short(adapt=Adapt(batch=8, lr=5e-3), update=SeedUpdate(steps=60, lr=3e-3))
    zero_shot = accuracy(learn(build_method(ZeroShot(), setting), tasks), tasks)
    method = learn(AutoSeedMethod(spec, setting), tasks)
    untrained = learn(AutoSeedMethod(short(update=SeedUpdate(steps=0)), setting), tasks)
    found = accuracy(method, tasks)
    assert found > zero_shot + 0.1, (found, zero_shot)
    assert found > accuracy(untrained, tasks), found
    assert accuracy(method, tasks[:1]) > zero_shot
    state = method.state()
    assert sum(len(state[f"seeds.{t}.y"]) for t in range(TASKS)) <= 4 * CLASSES


def test_held_out_samples_are_judges_and_nothing_else() -> None:
    setting, tasks = made()
    task = tasks[0]

    def state(x: Tensor, **changes: Any) -> State:
        moved = replace(task, train=replace(task.train, x=x))
        found: State = learn(AutoSeedMethod(short(**changes), setting), [moved]).state()
        return found

    method = AutoSeedMethod(short(), setting)
    method.seen = task.classes
    held = method._held_out(task)
    assert [int(held[task.train.y == c].sum()) for c in task.classes] == [1, 1, 1]
    other = torch.where(held[:, None], noise(*task.train.x.shape, seed=8), task.train.x)
    assert same(state(task.train.x, meta_update=False), state(other, meta_update=False))
    assert not same(state(task.train.x), state(other))


@pytest.mark.parametrize(
    "change",
    [
        {"consistency": False},
        {"gradient_conditioning": False},
        {"meta_update": False},
        {"pruning": False},
        {"order": "seeds_last"},
        {"anchor_image": 1.0},
        {"anchor_text": 5.0},
        {"fusion": 0.3},
        {"temperature": 0.5},
        {"update": SeedUpdate(steps=15, lr=1e-3, inner_steps=2)},
        {"update": SeedUpdate(steps=15, lr=1e-3, inner_lr=0.1)},
        {"update": SeedUpdate(steps=15, lr=1e-3, held_out=0.3)},
    ],
    ids=repr,
)
def test_every_switch_switches_something(change: dict[str, Any]) -> None:
    setting, tasks = made(samples=6)
    usual = learn(AutoSeedMethod(short(), setting), tasks[:2]).state()
    assert not same(usual, learn(AutoSeedMethod(short(**change), setting), tasks[:2]).state())


def test_old_seeds_stay_as_they_are_while_there_is_room() -> None:
    setting, tasks = made(samples=6)
    method, before = AutoSeedMethod(short(), setting), {}
    for task in tasks:
        learn(method, [task])
        now = method.state()
        assert all(torch.equal(now[n], t) for n, t in before.items())
        before = {n: t.clone() for n, t in now.items() if n.startswith("seeds.")}


def test_memory_holds_its_limit_and_one_seed_of_every_class() -> None:
    setting, tasks = made(samples=6)
    spread = {"update": SeedUpdate(steps=0), "pruning": True}
    method = AutoSeedMethod(short(memory=15, **spread), setting)
    method.generator.tensors["weight.0"][:, -8:] *= 30  # of the noise, so that none are alike
    method.generator.tensors["weight.2"] = noise(2 * WIDTH, 32)
    for task, most in zip(tasks, (12, 15, 15, 15), strict=True):
        learn(method, [task])
        kept = torch.cat([group.y for group in method.memory.groups])
        assert len(kept) == most and set(kept.tolist()) == set(method.seen)
    method = AutoSeedMethod(short(memory=1, **spread), setting)
    learn(method, tasks)
    assert sorted(torch.cat([group.y for group in method.memory.groups]).tolist()) == list(
        range(12)
    )
    assert same(
        learn(AutoSeedMethod(short(memory=1, **spread), setting), tasks).state(), method.state()
    )


def test_a_seed_is_counted_in_bytes() -> None:
    setting, tasks = made(samples=6)
    state = learn(AutoSeedMethod(short(), setting), tasks[:1]).state()
    seeds = len(state["seeds.0.y"])
    assert state["seeds.0.v"].nbytes + state["seeds.0.w"].nbytes == seeds * 2 * WIDTH * 4
    assert {name.split(".")[0] for name in state} == {"adapters", "generator", "seeds"}


def test_single_samples_and_classes_without_any() -> None:
    setting, tasks = made(samples=1)
    method = learn(AutoSeedMethod(short(), setting), tasks)
    assert bool(method.seen_scores(tasks[0].test.x).isfinite().all())
    assert accuracy(method, tasks) > 0.3
    setting, tasks = made(samples=5)
    gone = tasks[1].classes[0]
    keep = tasks[1].train.y != gone
    train = Samples(tasks[1].train.x[keep], tasks[1].train.y[keep], tasks[1].train.rows[keep])
    empty = replace(
        tasks[2], train=replace(train, x=train.x[:0], y=train.y[:0], rows=train.rows[:0])
    )
    some = [tasks[0], replace(tasks[1], train=train), empty, tasks[3]]
    method = learn(AutoSeedMethod(short(), setting), some)
    missing = {gone, *tasks[2].classes}
    assert {int(c) for g in method.memory.groups for c in g.y} == set(range(CLASSES)) - missing
    adapted = method.adapters.text(setting.text[gone])
    x = unit(noise(3, WIDTH))
    scores = SCALE * method.adapters.image(x) @ adapted
    assert torch.allclose(method.seen_scores(x)[:, method.seen.index(gone)], scores, atol=1e-4)


@pytest.mark.parametrize("order", ["seeds_first", "seeds_last"])
def test_stops_anywhere_change_nothing(order: str) -> None:
    setting, tasks = made(samples=6)
    spec = short(order=order)
    whole = learn(AutoSeedMethod(spec, setting), tasks[:2]).state()
    start = learn(AutoSeedMethod(spec, setting), tasks[:1]).state()
    saved: dict[str, Mapping[str, Tensor]] = {}
    stops = 0

    def stopping() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    while True:
        left = 4
        method = AutoSeedMethod(spec, setting)
        method.seen = tasks[0].classes
        method.restore(start)
        lent: dict[str, Any] = {
            "stopping": stopping,
            "save_partial": saved.__setitem__,
            "load_partial": saved.get,
        }
        try:
            learn(method, tasks[1:2], **lent)
            break
        except StoppedError:
            stops += 1
    assert stops >= 3
    assert same(whole, method.state())


def test_divergence_is_told() -> None:
    setting, tasks = made(samples=4)
    for change, name in (
        ({"adapt": Adapt(lr=1e38)}, "method.adapt.lr"),
        ({"update": SeedUpdate(steps=3, lr=1e38)}, "method.update.lr"),
    ):
        with pytest.raises(MethodError, match=r"diverged in task 1(.|\n)*" + name):
            learn(AutoSeedMethod(short(**change), setting), tasks[:1])


def test_bad_input_is_refused_in_words() -> None:
    setting, _ = made()
    has_text = setting.has_text.clone()
    has_text[3] = False
    with pytest.raises(DataError, match="needs a text vector for every class"):
        AutoSeedMethod(short(), replace(setting, has_text=has_text))
    for options in (
        {"per_class": 0},
        {"fusion": 1.5},
        {"order": "first"},
        {"update": {"inner_steps": 6}},
        {"update": {"held_out": 1.0}},
        {"consistensy": False},
    ):
        with pytest.raises(ConfigError):
            check(AutoSeed, {"kind": "autoseed", **options})


def test_figures_say_how_seeds_lie_beside_vectors() -> None:
    text = unit(noise(2, WIDTH))
    x = unit(noise(40, WIDTH, seed=1))
    y = torch.arange(40) % 2
    means = unit(torch.stack([x[y == c].mean(dim=0) for c in range(2)]))
    figures = seed_figures(Seeds(means, text, torch.arange(2)), x, y, text)
    assert figures["seeds"] == 2
    assert figures["cosine_to_mean"] == pytest.approx(1) == figures["cosine_to_text"]
    assert figures["spread"] == pytest.approx(0, abs=1e-6)
    real = seed_figures(Seeds(x, text[y], y), x, y, text)
    assert real["distance_to_nearest"] == pytest.approx(0, abs=1e-3)
    assert real["spread"] == pytest.approx(real["spread_of_vectors"])
    assert real["spread"] > 0 and real["vectors_apart"] > 0.5
    alone = seed_figures(Seeds(x[:1], text[:1], y[:1]), x[:1], y[:1], text)
    assert alone["vectors_apart"] is None and alone["spread_of_vectors"] == pytest.approx(0)


def test_a_run_tells_its_figures(tmp_path: Path) -> None:
    world = World(tmp_path)
    result = world.run("autoseed")
    figures = result.values["figures"]
    assert len(figures) == 3
    assert all(0 < task["cosine_to_mean"] <= 1 + 1e-6 for task in figures)


@pytest.mark.skipif(not CARS.exists(), reason="the real embedding sets are not here")
def test_it_learns_real_cars_one_task_after_the_other() -> None:
    from raycl import Experiment

    stream_spec = EmbeddingsStream(paths=(str(CARS),), tasks=10, order_seed=1992)
    stream = build(
        Experiment(method=AutoSeed(), stream=stream_spec, seed=0).resolved(),
        read_source(stream_spec),
    )
    tasks = list(stream.tasks[:3])
    setting = Setting(
        stream.class_names,
        unit(stream.text.float()),
        stream.has_text,
        100.0,
        0,
        Validation(seed=0),
        CPU,
    )
    zero_shot = accuracy(learn(build_method(ZeroShot(), setting), tasks), tasks)
    spec = AutoSeed(hidden=128, update=SeedUpdate(steps=60, lr=1e-3))
    method = learn(AutoSeedMethod(spec, setting), tasks)
    assert accuracy(method, tasks) > zero_shot + 0.02
    assert len(method.memory) <= 4 * len(method.seen)
