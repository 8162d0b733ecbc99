"""LADA: its sums are exact, old classes are fixed, it learns, resumes, and stays small."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from raycl.backbones.encoder import Encoder, load_encoder
from raycl.compute.local_pool import LocalPool
from raycl.config.backbones import TINY_CLIP, Backbone
from raycl.config.lada import LADA
from raycl.config.loading import check
from raycl.config.methods import ZeroShot
from raycl.config.streams import EmbeddingsStream, Validation
from raycl.errors import ConfigError, MethodError, StoppedError
from raycl.methods import conformance
from raycl.methods.build import build_method
from raycl.methods.context import Context
from raycl.methods.lada import LADAMethod
from raycl.methods.method import Method, Setting, State
from raycl.methods.parts.keys import unit
from raycl.methods.parts.preserved import Images, PreservedTraining, Replay, Scoring
from raycl.observe.events import Event, Warned, nobody
from raycl.streams.stream import Samples, Task, build, read_source
from tests.backbones.made_backbones import save_backbone
from tests.engine.worlds import World

CPU = torch.device("cpu")
CARS = Path(os.environ.get("RAYCL_DATA", "")) / "clip_vitb32" / "stanford_cars.npz"
WIDTH = 24


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def short(**changes: Any) -> LADA:
    return LADA(**{"epochs": 3, "batch": 8, "centres": 4, "components": 2, **changes})


def setting_of(text: Tensor, encoder: Encoder | None = None, scale: float = 100.0) -> Setting:
    return Setting(
        class_names=tuple(f"thing {c}" for c in range(len(text))),
        text=unit(text),
        has_text=torch.ones(len(text), dtype=torch.bool),
        logit_scale=scale,
        init_seed=0,
        validation=Validation(seed=0),
        device=CPU,
        encoder=encoder,
    )


def clusters(classes: int, each: int = 20, spread: float = 0.8) -> tuple[Setting, list[Task]]:
    """Two lumps per class, on either side of a text vector that says only part of it."""
    text, lump = unit(noise(classes, WIDTH)), unit(noise(2 * classes, WIDTH, seed=1))
    setting = setting_of(text)

    def samples(part: tuple[int, ...], seed: int) -> Samples:
        y = torch.tensor(part).repeat_interleave(each)
        side = 2 * y + torch.arange(len(y)) % 2
        x = 0.5 * text[y] + 0.7 * lump[side] + spread / WIDTH**0.5 * noise(len(y), WIDTH, seed=seed)
        return Samples(5 * x, y, np.arange(len(y)))

    tasks = []
    for index, first in enumerate(range(0, classes, 3)):
        part = tuple(range(first, min(first + 3, classes)))
        train, test = samples(part, 10 + index), samples(part, 100 + index)
        tasks.append(Task(index, part, train=train, fit=train, held_out=test, test=test))
    return setting, tasks


def learn(method: Method[Any], tasks: list[Task], **lent: Any) -> Method[Any]:
    for task in tasks:
        method.seen = (*method.seen, *(c for c in task.classes if c not in method.seen))
        lent = {"pool": LocalPool(), "observer": nobody, **lent}
        method.learn(task.without_test(), Context(task.index, **lent))
    return method


def learnt(spec: LADA, setting: Setting, tasks: list[Task], **lent: Any) -> LADAMethod:
    method = learn(build_method(spec, setting), tasks, **lent)
    assert isinstance(method, LADAMethod)
    return method


def accuracy(method: Method[Any], tasks: list[Task]) -> float:
    x = torch.cat([task.test.x for task in tasks])
    y = torch.cat([task.test.y for task in tasks])
    with torch.no_grad():
        found = torch.tensor(method.seen)[method.seen_scores(x).argmax(dim=1)]
    return 100 * float((found == y).float().mean())


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


VARIANTS = [
    short(),
    short(input="unit", text="residual"),
    short(dpt=False),
    short(memory=False),
    short(text_branch=False),
    short(loss="paper"),
    short(loss="balanced", prototype_batch=3),
    short(dpt=False, prototype_batch=3),
    short(gate="none", prototype_weight=0.0),
    short(spread=0.0, text_lr=1e-4, epochs=(1, 2, 3, 1)),
]


@pytest.mark.parametrize("spec", VARIANTS, ids=repr)
def test_it_holds_the_contract(spec: LADA) -> None:
    findings = conformance.check_method(lambda setting: build_method(spec, setting))
    assert {f.what: f.fault for f in findings if not f.ok} == {}


@pytest.mark.parametrize("spec", [short(epochs=1), short(epochs=1, memory=False)], ids=repr)
def test_the_adapter_holds_the_contract(tmp_path: Path, spec: LADA) -> None:
    encoder = load_encoder(save_backbone(tmp_path, embed_dim=conformance.WIDTH), CPU)

    def with_tower(setting: Setting) -> Method[Any]:
        method = build_method(spec, replace(setting, encoder=encoder))
        assert isinstance(method, LADAMethod) and method.branch == "adapter"
        return method

    findings = conformance.check_method(with_tower)
    assert {f.what: f.fault for f in findings if not f.ok} == {}


def test_it_learns_more_than_the_text_says() -> None:
    setting, tasks = clusters(12, spread=1.4)
    zero_shot = accuracy(learn(build_method(ZeroShot(), setting), tasks), tasks)
    spec = LADA(epochs=60, batch=16, lr=1e-2, centres=4, loss="balanced")
    full = accuracy(learnt(spec, setting, tasks), tasks)
    unreplayed = {"prototype_weight": 0.0}
    forgetting = accuracy(learnt(spec.model_copy(update=unreplayed), setting, tasks), tasks)
    assert full > zero_shot + 10, (full, zero_shot)
    assert full > forgetting + 2, (full, forgetting)


def test_the_adapter_learns_real_digits(tiny: Encoder) -> None:
    """Ten classes in five tasks, through the text tower."""
    setting, tasks = digits(tiny, each=24)
    zero_shot = accuracy(learn(build_method(ZeroShot(), setting), tasks), tasks)
    spec = LADA(epochs=12, batch=16, lr=1e-2, loss="balanced")
    full = learnt(spec, setting, tasks)
    assert full.branch == "adapter" and full.trainable_parameters > 1000

    def without(**part: Any) -> float:
        return accuracy(learnt(spec.model_copy(update=part), setting, tasks), tasks)

    found = accuracy(full, tasks)
    assert found > zero_shot + 10, (found, zero_shot)
    assert without(memory=False) > zero_shot + 5
    assert without(prototype_weight=0.0) < found - 20


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return load_encoder(Backbone(name=TINY_CLIP), CPU)


def digits(tiny: Encoder, each: int) -> tuple[Setting, list[Task]]:
    """So many images of each of scikit-learn's digits to learn from, and half as many to test."""
    images, labels = load_digits(return_X_y=True)
    rows = np.concatenate([np.flatnonzero(labels == c)[: each + each // 2] for c in range(10)])
    drawn = (16 * images[rows].reshape(-1, 8, 8)).clip(0, 255).astype(np.uint8)
    pictures = [Image.fromarray(image).resize((32, 32)).convert("RGB") for image in drawn]
    x = tiny.encode_images(torch.stack([tiny.preprocess(picture) for picture in pictures]))
    y = torch.from_numpy(labels[rows]).long()
    names = tuple(f"digit {c}" for c in range(10))
    text = tiny.encode_texts([f"a photo of a {name}." for name in names])
    setting = replace(setting_of(text, tiny, tiny.logit_scale), class_names=names)
    place = torch.arange(len(y)) % (each + each // 2)

    def part(classes: tuple[int, ...], keep: Tensor) -> Samples:
        at = torch.nonzero(torch.isin(y, torch.tensor(classes)) & keep).flatten()
        return Samples(x[at], y[at], at.numpy())

    tasks = []
    for index in range(5):
        classes = (2 * index, 2 * index + 1)
        train, test = part(classes, place < each), part(classes, place >= each)
        tasks.append(Task(index, classes, train=train, fit=train, held_out=test, test=test))
    return setting, tasks


def test_what_a_task_left_never_changes() -> None:
    setting, tasks = clusters(9)
    early, late = learnt(short(), setting, tasks[:2]), learnt(short(), setting, tasks)
    kept = early.state()
    assert {name.split(".")[1] for name in kept} == {"0", "1"}
    for name, tensor in kept.items():
        assert torch.equal(late.state()[name], tensor), name
    assert len(late.state()) == 3 * len(kept) // 2


def test_learning_a_task_again_replaces_what_it_left() -> None:
    setting, tasks = clusters(9)
    once = learnt(short(), setting, tasks)
    twice = learn(once, tasks[2:])
    assert same(twice.state(), learnt(short(), setting, tasks).state())


def test_only_its_own_samples_reach_a_task() -> None:
    """Old vectors changed behind its back change nothing: it has none."""
    setting, tasks = clusters(6)
    method = learnt(short(), setting, tasks[:1])
    tasks[0].train.x.fill_(math.nan)
    assert same(learn(method, tasks[1:]).state(), learnt_afresh(tasks[1:]).state())


def learnt_afresh(rest: list[Task]) -> Method[Any]:
    setting, tasks = clusters(6)
    return learnt(short(), setting, [*tasks[: rest[0].index], *rest])


def test_the_gate_lets_memory_speak_where_text_names_a_seen_class() -> None:
    setting, tasks = clusters(12)
    gated = learnt(short(), setting, tasks[:2])
    free = learnt(short(gate="none"), setting, tasks[:2])
    x = torch.cat([task.test.x for task in tasks])
    open_, closed = free.union_scores(x), gated.union_scores(x)
    assert open_ is not None and closed is not None
    text_only = learnt(short(), setting, tasks[:2])
    text_only.learnt = {t: replace(found, memory=None) for t, found in gated.learnt.items()}
    text = text_only.union_scores(x)
    assert text is not None
    named = torch.isin(text.argmax(dim=1), torch.tensor(gated.seen))
    assert named.any() and not named.all()
    assert torch.equal(closed[named], open_[named]) and torch.equal(closed[~named], text[~named])
    # The rule as it is written: the argmax of text + memory over the seen classes.
    seen = torch.tensor(gated.seen)
    assert torch.equal(closed[named].argmax(dim=1), seen[gated.seen_scores(x[named]).argmax(dim=1)])
    assert (closed >= text - 1e-5).all()


def test_ablations_leave_their_part_out() -> None:
    setting, tasks = clusters(6)
    whole = set(learnt(short(), setting, tasks).state())
    names = {"classes", "text", "centres", "sizes", "weight", "mean", "variance"}
    assert whole == {f"tasks.{t}.{name}" for t in range(2) for name in names}
    still = learnt(short(text_branch=False), setting, tasks)
    assert not any(name.endswith(".text") for name in still.state())
    assert still.trainable_parameters == 3 * 4 * WIDTH
    bare = learnt(short(memory=False), setting, tasks)
    assert not any(name.endswith(("centres", "sizes")) for name in bare.state())
    assert bare.trainable_parameters == 3 * WIDTH
    with pytest.raises(ConfigError, match="zero_shot"):
        check(LADA, {"kind": "lada", "memory": False, "text_branch": False})


def test_without_spread_every_draw_is_a_bare_mean() -> None:
    setting, tasks = clusters(9)
    bare = learnt(short(dpt=False), setting, tasks).state()
    again = learnt(short(dpt=False, spread=3.0), setting, tasks).state()
    assert same(bare, again)
    assert not same(bare, learnt(short(), setting, tasks).state())
    # Equal weights: what the mixtures weigh counts with dpt only.
    assert not same(bare, learnt(short(spread=0.0), setting, tasks).state())


def test_a_known_prototype_scores_as_one_made_again() -> None:
    """Bare means are scored once by the old classes, and in mini-batches each time."""
    setting, tasks = clusters(9)
    once = learnt(short(dpt=False), setting, tasks).state()
    each = learnt(short(dpt=False, spread=1.0, prototype_batch=4096), setting, tasks).state()
    assert same(once, each)
    rows = len(tasks[0].classes) * 2 * 2
    whole = learnt(short(dpt=False, prototype_batch=rows), setting, tasks).state()
    assert same(once, whole)
    assert not same(
        once, learnt(short(dpt=False, prototype_batch=rows - 1), setting, tasks).state()
    )


def test_loss_weights_add_up_as_published() -> None:
    """Three new classes in a batch of five, three old ones of two components."""
    setting, tasks = clusters(6, each=4)
    first = learnt(short(), setting, tasks[:1]).learnt[0].prototypes
    for loss, images, prototypes in (
        ("code", 5 / (5 + 6), 3 * 64 / (5 + 6)),
        ("paper", 1.0, 1.0),
        ("balanced", 3 / 6, 3 / 6),
    ):
        spec = LADA(loss=loss, components=2)
        replay = Replay.of([first], spec, setting)
        assert len(replay) == 6 and replay.classes == 3
        nothing = torch.zeros(1, requires_grad=True)
        scoring = Scoring(lambda x: x, lambda x: x, [nothing], [])
        context = Context(1, LocalPool(), nobody)
        own = Images(noise(5, WIDTH), torch.tensor([0, 0, 1, 1, 2]), 3)
        training = PreservedTraining(spec, setting, scoring, replay, own, context)
        assert training.target.tolist() == [3, 3, 4, 4, 5]
        found = training._image_weights(training.target)
        assert float(found.sum()) == pytest.approx(images)
        found = training._prototype_weights(slice(None), 6, 5)
        assert float(found.sum()) == pytest.approx(prototypes)
        part = training._prototype_weights(torch.tensor([1, 4]), 2, 5)
        assert torch.allclose(part, 3 * found[[1, 4]])


@pytest.mark.parametrize("changes", [{}, {"dpt": False}, {"prototype_batch": 4}], ids=str)
def test_stopped_at_every_step_it_ends_the_same(changes: dict[str, Any]) -> None:
    setting, tasks = clusters(6, each=8)
    through = learnt(short(**changes), setting, tasks)
    saved: dict[str, Mapping[str, Tensor]] = {}
    first, stops = learnt(short(**changes), setting, tasks[:1]).state(), 0
    while True:
        method = build_method(short(**changes), setting)
        method.seen = tasks[0].classes
        method.restore(first)
        lent: dict[str, Any] = {"load_partial": saved.get, "save_partial": saved.__setitem__}
        try:
            learn(method, tasks[1:], stopping=lambda: True, **lent)
        except StoppedError:
            stops += 1
            continue
        break
    assert stops == 1 + 3 * 3  # the summaries, three epochs of three batches
    assert same(method.state(), through.state())


def test_workers_of_a_pool_are_given_classes(tmp_path: Path) -> None:
    """And come back with the numbers of one process, in whatever order they finish."""

    class Backwards(LocalPool):
        def map_unordered(self, *args: Any, **options: Any) -> Iterator[Any]:
            yield from reversed(list(super().map_unordered(*args, **options)))

    setting, tasks = clusters(30, each=6)
    whole = [replace(tasks[0], classes=tuple(range(30)), train=joined(tasks))]
    here = learnt(short(epochs=1), setting, whole)
    there = learnt(short(epochs=1), setting, whole, pool=Backwards())
    assert same(here.state(), there.state())


def joined(tasks: list[Task]) -> Samples:
    x = torch.cat([task.train.x for task in tasks])
    return Samples(x, torch.cat([task.train.y for task in tasks]), np.arange(len(x)))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"text": "adapter"}, "text tower"),
        ({"epochs": (1,)}, "fewer numbers"),
        ({"lr": 1e30, "weight_decay": 1e9}, "diverged"),
    ],
    ids=lambda value: str(value),
)
def test_what_cannot_be_is_told(options: dict[str, Any], what: str) -> None:
    setting, tasks = clusters(6)
    with pytest.raises((ConfigError, MethodError), match=what):
        learnt(short(**options), setting, tasks)


@pytest.mark.parametrize(
    "bad", [{"centres": 0}, {"epochs": []}, {"epochs": [3, 0]}, {"loss": "mean"}, {"alpha": -1}]
)
def test_options_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        check(LADA, {"kind": "lada", **bad})


def test_unit_vectors_are_told_once() -> None:
    setting, tasks = clusters(6)
    told: list[Event] = []
    for task in tasks:
        task.train.x.copy_(unit(task.train.x))
    learnt(short(), setting, tasks, observer=told.append)
    assert len([event for event in told if isinstance(event, Warned)]) == 1
    learnt(short(input="unit"), setting, tasks, observer=told.append)
    assert len([event for event in told if isinstance(event, Warned)]) == 1


def test_input_unit_is_of_scaled_vectors() -> None:
    setting, tasks = clusters(6)
    scaled = learnt(short(input="unit"), setting, tasks)
    for task in tasks:
        task.train.x.copy_(unit(task.train.x))
    assert same(scaled.state(), learnt(short(), setting, tasks).state())


def test_it_runs_and_continues_in_the_engine(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    short_run = ("method.epochs=4", "method.centres=4")
    through = World(tmp_path / "a", train=10).run("lada", *short_run)
    stopped = World(tmp_path / "b", train=10)
    for last in (1, 2):
        with pytest.raises(StoppedError):
            stopped.run("lada", *short_run, stop_after=last)
    again = stopped.run("lada", *short_run)
    assert again.values["r_seen"] == through.values["r_seen"]
    assert again.values["r_union"] == through.values["r_union"]
    assert through.metrics["last_pooled"] > 60
    assert through.values["state_mib"] < 0.1


@pytest.mark.skipif(not CARS.exists(), reason="the real embedding sets are not here")
def test_it_learns_real_cars_one_task_after_the_other() -> None:
    setting, tasks = first_cars(3)
    zero_shot = accuracy(learn(build_method(ZeroShot(), setting), tasks), tasks)
    spec = LADA(input="unit", epochs=6, loss="balanced")
    full = accuracy(learnt(spec, setting, tasks), tasks)
    assert full > zero_shot + 5, (full, zero_shot)


def first_cars(count: int) -> tuple[Setting, list[Task]]:
    from raycl import Experiment

    stream_spec = EmbeddingsStream(paths=(str(CARS),), tasks=10, order_seed=1992)
    experiment = Experiment(method=LADA(), stream=stream_spec, seed=0).resolved()
    stream = build(experiment, read_source(stream_spec))
    setting = setting_of(stream.text)
    return replace(setting, class_names=stream.class_names), list(stream.tasks[:count])
