"""CGIL and replay of real vectors: they learn without old vectors, resume, mean their options."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
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
from raycl.config.generators import (
    GaussianGenerator,
    RealVectors,
    SharedVAEGenerator,
    VAEGenerator,
)
from raycl.config.loading import check
from raycl.config.methods import (
    CGIL,
    Align,
    AlignedReplay,
    AlignPrompts,
    Finetune,
    MappedResidual,
    MappedTokens,
    RealReplay,
    TokenPrompt,
    ZeroShot,
)
from raycl.config.spec import canonical, identity
from raycl.config.streams import Validation
from raycl.errors import ConfigError, StoppedError
from raycl.methods import conformance
from raycl.methods.build import build_method
from raycl.methods.context import Context
from raycl.methods.method import Method, Setting
from raycl.methods.parts.aligned import AlignedMethod
from raycl.methods.parts.class_generators import ClassGenerators
from raycl.methods.parts.keys import unit
from raycl.observe.events import Event, Warned, nobody
from raycl.replay.sampled import Where, WholeEpochs
from raycl.store.store import Store
from raycl.streams.stream import Samples, Task
from tests.backbones.made_backbones import save_backbone
from tests.engine.worlds import World, numbers, predictions_digests

CPU = torch.device("cpu")
DIAGONAL = GaussianGenerator()
QUICK = AlignPrompts(lr=0.01, epochs=2, batch=32)
TRAIN, TEST = 30, 15
TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return load_encoder(Backbone(name=TINY_CLIP), CPU)


@pytest.fixture(scope="module")
def digits(tiny: Encoder) -> tuple[Setting, list[Task]]:
    """Some of scikit-learn's handwritten digits as tiny-CLIP sees them, two at a time."""
    images, labels = load_digits(return_X_y=True)
    rows = {c: np.flatnonzero(labels == c)[: TRAIN + TEST] for c in range(10)}
    every = np.concatenate(list(rows.values()))
    pictures = [
        Image.fromarray((16 * images[row].reshape(8, 8)).clip(0, 255).astype(np.uint8))
        for row in every
    ]
    x = tiny.encode_images(
        torch.stack([tiny.preprocess(p.resize((32, 32)).convert("RGB")) for p in pictures])
    )
    y = torch.from_numpy(labels[every]).long()
    names = tuple(f"digit {c}" for c in range(10))
    setting = setting_of(tiny, names)
    place = torch.arange(len(every)) % (TRAIN + TEST)

    def part(classes: tuple[int, ...], keep: Tensor) -> Samples:
        at = torch.nonzero(torch.isin(y, torch.tensor(classes)) & keep).flatten()
        return Samples(x[at], y[at], at.numpy())

    tasks = []
    for index, classes in enumerate(TASKS):
        train, test = part(classes, place < TRAIN), part(classes, place >= TRAIN)
        tasks.append(Task(index, classes, train=train, fit=train, held_out=test, test=test))
    return setting, tasks


def setting_of(encoder: Encoder, names: tuple[str, ...]) -> Setting:
    return Setting(
        class_names=names,
        text=unit(encoder.encode_texts([f"a photo of a {name}." for name in names])),
        has_text=torch.ones(len(names), dtype=torch.bool),
        logit_scale=encoder.logit_scale,
        init_seed=0,
        validation=Validation(seed=0),
        device=CPU,
        encoder=encoder,
    )


def learn(method: Method[Any], tasks: list[Task], **lent: Any) -> Method[Any]:
    for task in tasks:
        method.seen = (*method.seen, *task.classes)
        method.learn(task.without_test(), Context(task.index, LocalPool(), nobody, **lent))
    return method


def accuracy(method: Method[Any], tasks: list[Task]) -> float:
    x = torch.cat([task.test.x for task in tasks])
    y = torch.cat([task.test.y for task in tasks])
    found = torch.tensor(method.seen)[method.seen_scores(x).argmax(dim=1)]
    return float((found == y).float().mean())


def synthetic(spec: AlignedReplay, tasks: int = 4, **lent: Any) -> AlignedMethod[Any]:
    """Learnt on the stream of the conformance suite."""
    setting = conformance.synthetic_setting()
    method = build_method(spec, setting)
    learn(method, list(conformance.synthetic_tasks(setting))[:tasks], **lent)
    assert isinstance(method, AlignedMethod)
    return method


def quick(**changes: Any) -> CGIL:
    return CGIL(**{"generator": DIAGONAL, "per_class": 8, "align": QUICK, **changes})


@pytest.mark.parametrize("prompt", [MappedTokens(), MappedResidual()], ids=lambda p: p.kind)
def test_it_learns_real_digits_without_old_vectors(
    digits: tuple[Setting, list[Task]], prompt: MappedTokens | MappedResidual
) -> None:
    setting, tasks = digits
    align = AlignPrompts(lr=0.03 if prompt.kind == "tokens" else 0.01, epochs=8, batch=64)
    generator = GaussianGenerator(covariance="full")
    spec = CGIL(generator=generator, per_class=96, align=align, prompt=prompt)
    method = learn(build_method(spec, setting), tasks)
    zero_shot = accuracy(learn(build_method(ZeroShot(), setting), tasks), tasks)
    naive = Finetune(align=Align(lr=0.01, epochs=6, batch=64), prompt=TokenPrompt())
    finetune = accuracy(learn(build_method(naive, setting), tasks), tasks)
    found = accuracy(method, tasks)
    assert found > zero_shot + 0.05, (found, zero_shot)
    assert found > finetune + 0.2, (found, finetune)
    assert not any("x" in name.split(".") for name in method.state())


@pytest.mark.parametrize(
    "spec",
    [
        quick(),
        quick(train="current", prompt=MappedResidual(mapped=False)),
        quick(input="unit", prompt=MappedResidual(own=False, mapped=True)),
        quick(
            prompt=MappedResidual(shared=True, mapped=True),
            align=AlignPrompts(epochs=2, precision="bf16"),
        ),
        quick(generator=GaussianGenerator(covariance="full")),
        quick(generator=VAEGenerator(epochs=3, hidden=8, latent=4)),
        quick(generator=SharedVAEGenerator(epochs=3, hidden=8, latent=4, class_width=2)),
        RealReplay(per_class=8, align=QUICK, memory=RealVectors(per_class=2)),
    ],
    ids=repr,
)
def test_residuals_hold_the_contract(spec: Any) -> None:
    findings = conformance.check_method(lambda setting: build_method(spec, setting))
    assert {f.what: f.fault for f in findings if not f.ok} == {}


@pytest.mark.parametrize(
    "prompt",
    [
        MappedTokens(),
        MappedTokens(mapped=False, orthogonality=0.1),
        MappedTokens(tokens=0),
        MappedTokens(tokens=2, shared=True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("train", ["all", "current"])
def test_tokens_hold_the_contract(tmp_path: Path, prompt: MappedTokens, train: str) -> None:
    encoder = load_encoder(save_backbone(tmp_path, embed_dim=conformance.WIDTH), CPU)
    spec = quick(prompt=prompt, train=train)
    findings = conformance.check_method(
        lambda setting: build_method(spec, replace(setting, encoder=encoder))
    )
    assert {f.what: f.fault for f in findings if not f.ok} == {}


def test_another_class_order_or_cut_refits_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, train=12)
    small = (
        "method.generator.kind=gaussian",
        "method.per_class=8",
        "method.align.epochs=2",
        "seed=3",
    )
    first = world.run("cgil", *small)
    assert first.computed["generator"] == 6
    for changed in ("stream.order_seed=77", "stream.tasks=2", "method.align.lr=0.01"):
        again = world.run("cgil", *small, changed)
        assert "generator" not in again.computed, changed
        assert again.reused["generator"] == 6
    assert world.run("cgil", *small, "init_seed=5").computed["generator"] == 6


def test_a_stored_generator_is_the_one_fitted_here(tmp_path: Path) -> None:
    for generator in (VAEGenerator(epochs=3, hidden=8, latent=4), DIAGONAL, SharedVAEGenerator(
        epochs=3, hidden=8, latent=4, class_width=2
    )):  # fmt: skip
        here = synthetic(quick(generator=generator), tasks=2)
        store = Store.open(str(tmp_path / generator.kind), nobody)
        stored = synthetic(quick(generator=generator), tasks=2, store=store)
        for name, tensor in here.state().items():
            assert torch.equal(tensor, stored.state()[name]), (generator.kind, name)


def test_stopped_between_tasks_it_ends_with_the_same_numbers(tmp_path: Path) -> None:
    for folder in ("through", "stopped"):
        (tmp_path / folder).mkdir()
    world = World(tmp_path / "through", train=10)
    small = ["method.generator.kind=gaussian", "method.per_class=8", "method.align.epochs=2"]
    through = world.run("cgil", *small)
    stopped = World(tmp_path / "stopped", train=10)
    for last in (1, 2):
        with pytest.raises(StoppedError):
            stopped.run("cgil", *small, stop_after=last)
    again = stopped.run("cgil", *small)
    assert numbers(again) == numbers(through)
    assert predictions_digests(stopped.store) == predictions_digests(world.store)


def test_an_epoch_half_done_is_drawn_again() -> None:
    setting = conformance.synthetic_setting()
    tasks = list(conformance.synthetic_tasks(setting))
    spec = quick(align=AlignPrompts(epochs=3, batch=10))
    through = learn(build_method(spec, setting), tasks)
    saved: dict[str, Mapping[str, Tensor]] = {}
    first, stops = learn(build_method(spec, setting), tasks[:3]), 0
    while True:
        method = build_method(spec, setting)
        method.seen = first.seen
        method.restore(first.state())
        try:
            learn(
                method,
                tasks[3:],
                stopping=lambda: True,
                load_partial=saved.get,
                save_partial=saved.__setitem__,
            )
        except StoppedError:
            stops += 1
            continue
        break
    assert stops >= 12  # three epochs of four or more batches, and the fit
    for name, tensor in through.state().items():
        assert torch.equal(method.state()[name], tensor), name


def epochs_of(generators: ClassGenerators, task: int, draws: Where = "trainer") -> WholeEpochs:
    with LocalPool() as pool:
        return generators.replay(8, Context(task, pool, nobody, draws=draws)).whole_epochs(5)


def test_the_workers_of_a_pool_draw_what_the_trainer_draws() -> None:
    method = synthetic(quick())
    with closing(epochs_of(method.generators, 3, "workers")) as there:
        here = epochs_of(method.generators, 3)
        for epoch in (0, 1, 4, 2):  # in order, and after a jump
            (x, y), (x2, y2) = there.epoch(epoch), here.epoch(epoch)
            assert torch.equal(x, x2) and torch.equal(y, y2)


@pytest.mark.parametrize("prompt", [MappedTokens(), MappedResidual()], ids=lambda p: p.kind)
def test_text_vectors_of_classes_to_come_keep_trained_keys_near_their_samples(
    digits: tuple[Setting, list[Task]], prompt: MappedTokens | MappedResidual
) -> None:
    setting, tasks = digits
    x, y = unit(tasks[0].test.x), tasks[0].test.y
    own, scores = [], []
    for negatives in ("seen", "all"):
        align = AlignPrompts(lr=0.03, epochs=8, batch=64)
        spec = quick(align=align, negatives=negatives, prompt=prompt, per_class=96)
        method = learn(build_method(spec, setting), tasks[:1])
        union = method.union_scores(x)
        assert union is not None
        own.append(float(union[torch.arange(len(y)), y].mean()))
        scores.append(union)
    assert own[1] > own[0]
    later = list(TASKS[1] + TASKS[2])  # what stood beside the trained keys has not moved
    zero_shot = setting.zero_shot(x)[:, later]
    assert torch.allclose(scores[1][:, later], zero_shot, atol=1e-3)


def test_every_epoch_draws_anew_and_each_class_by_itself() -> None:
    method = synthetic(quick())
    draws = epochs_of(method.generators, task=3)
    one, again, other = draws.epoch(1), draws.epoch(1), draws.epoch(2)
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0], epochs_of(method.generators, task=2).epoch(1)[0])
    assert one[1].tolist() == [c for c in method.generators.classes for _ in range(8)]
    # Fewer classes, another order: those that are there draw what they drew.
    some = ClassGenerators(method.spec.generator, method.setting)
    some.fitted = method.generators.fitted[::-1][:2]
    x, y = epochs_of(some, task=3).epoch(1)
    for c in some.classes:
        assert torch.equal(x[y == c], one[0][one[1] == c])


def test_same_names_in_two_domains_draw_differently() -> None:
    setting = conformance.synthetic_setting()
    setting = replace(setting, class_names=("same", "same", *setting.class_names[2:]))
    generators = ClassGenerators(DIAGONAL, setting)
    assert len(set(generators.names)) == setting.classes
    assert generators.names[2:] == setting.class_names[2:]


def test_generators_are_never_updated_and_counted_as_state() -> None:
    early, late = synthetic(quick(), tasks=2), synthetic(quick(), tasks=4)
    for name, tensor in early.state().items():
        if name.startswith("generators."):
            assert torch.equal(late.state()[name], tensor)
    held = sum(t.nbytes for n, t in late.state().items() if ".bank." in n)
    assert held == 5 * 2 * conformance.WIDTH * 4  # means and deviations of the five with samples


def test_a_class_without_a_sample_keeps_its_zero_shot_key() -> None:
    method = synthetic(quick())
    x = torch.randn(9, conformance.WIDTH, generator=torch.Generator().manual_seed(0))
    union, zero_shot = method.union_scores(x), method.setting.zero_shot(x)
    assert union is not None
    empty = [c for c, count in conformance.COUNTS.items() if not count]
    assert torch.equal(union[:, empty], zero_shot[:, empty])
    full = [c for c, count in conformance.COUNTS.items() if count]
    assert torch.nonzero(method.head.trained).flatten().tolist() == sorted(full)
    moved = ~torch.isclose(union[:, full], zero_shot[:, full]).all(dim=0)
    assert moved.sum() >= 4  # a class may lie so far from all others that nothing pulls at it


def test_parts_of_the_prompt_can_be_left_out() -> None:
    whole = set(synthetic(quick(prompt=MappedResidual(mapped=True)), 2).state())
    own_only = set(synthetic(quick(prompt=MappedResidual(mapped=False)), 2).state())
    map_only = set(synthetic(quick(prompt=MappedResidual(own=False, mapped=True)), 2).state())
    assert "own" in own_only and not any(name.startswith("map.") for name in own_only)
    assert "own" not in map_only and whole == own_only | map_only


def test_only_the_current_prompts_move_if_asked() -> None:
    spec = quick(train="current", prompt=MappedResidual(mapped=False))
    before, after = synthetic(spec, 2).state()["own"], synthetic(spec, 3).state()["own"]
    assert torch.equal(after[: len(before)], before) and after[len(before) :].any()
    moving = quick(prompt=MappedResidual(mapped=False))
    old, new = synthetic(moving, 2).state()["own"], synthetic(moving, 3).state()["own"]
    assert not torch.equal(new[: len(old)], old)
    shared = synthetic(quick(prompt=MappedResidual(mapped=False, shared=True)), 3)
    assert shared.state()["own"].shape == (1, conformance.WIDTH)
    assert shared.trainable_parameters == conformance.WIDTH


def test_orthogonality_moves_tokens_apart(tiny: Encoder) -> None:
    setting = setting_of(tiny, ("cat", "dog", "tree", "car"))
    x = torch.randn(24, setting.width, generator=torch.Generator().manual_seed(1))
    data = Samples(x, torch.arange(24) % 4, np.arange(24))
    task = Task(0, (0, 1, 2, 3), train=data, fit=data, held_out=data, test=data)

    def excess(weight: float) -> float:
        prompt = MappedTokens(mapped=False, orthogonality=weight)
        align = AlignPrompts(lr=0.02, epochs=10, batch=16)
        method = learn(build_method(quick(prompt=prompt, align=align), setting), [task])
        rows = method.state()["own"].flatten(1)
        return float((rows @ rows.T - torch.eye(4)).square().mean())

    assert excess(100.0) < 0.5 * excess(0.0)


def test_unit_input_is_scaled_and_raw_unit_vectors_are_told() -> None:
    setting = conformance.synthetic_setting()
    tasks = list(conformance.synthetic_tasks(setting))[:2]
    told: list[Event] = []

    def means(spec: CGIL, scale: float | None) -> Tensor:
        method = build_method(spec, setting)
        for task in tasks:
            x = unit(task.train.x) if scale is None else scale * task.train.x
            task = replace(task, train=replace(task.train, x=x), index=0)
            method.seen = task.classes
            method.learn(task, Context(0, LocalPool(), told.append))
        return method.state()["generators.0.bank.mean"]

    assert torch.allclose(means(quick(input="unit"), 1.0), means(quick(input="unit"), 7.0))
    assert not torch.allclose(means(quick(), 1.0), means(quick(), 7.0))
    assert not [e for e in told if isinstance(e, Warned)]
    assert torch.allclose(means(quick(), None), means(quick(input="unit"), 1.0), atol=1e-6)
    (warned,) = [e for e in told if isinstance(e, Warned)]
    assert "method.input=unit" in warned.message


def test_parity_leaves_unseen_keys_at_their_raw_length(tiny: Encoder) -> None:
    names = ("cat", "dog", "tree", "car")
    setting = setting_of(tiny, names)
    x = torch.randn(12, setting.width, generator=torch.Generator().manual_seed(1))
    data = Samples(x, torch.arange(12) % 2, np.arange(12))
    task = Task(0, (0, 1), train=data, fit=data, held_out=data, test=data)
    scores = {}
    for parity in (False, True):
        method = learn(build_method(quick(parity=parity), setting), [task])
        scores[parity] = method.union_scores(x)
    ours, published = scores[False], scores[True]
    assert ours is not None and published is not None
    assert torch.equal(ours[:, :2], published[:, :2])
    raw = tiny.encode_texts([f"a photo of a {name}." for name in names]).norm(dim=1)
    assert torch.allclose(published[:, 2:], ours[:, 2:] * raw[2:], rtol=1e-3, atol=1e-3)
    with pytest.raises(ConfigError, match="another"):
        build_method(quick(parity=True), replace(setting, text=setting.text.flip(0)))
    with pytest.raises(ConfigError, match="vectors only"):
        build_method(quick(parity=True), conformance.synthetic_setting())


def test_a_single_sample_is_enough(tmp_path: Path) -> None:
    world = World(tmp_path, train=1)
    for generator in ("gaussian", "vae", "mean"):
        extra = ["method.generator.epochs=3"] if generator == "vae" else []
        result = world.run(
            "cgil",
            f"method.generator.kind={generator}",
            *extra,
            "method.per_class=4",
            "method.align.epochs=2",
        )
        assert result.values["metrics"]["last_pooled"] is not None


def test_bad_input_is_refused_in_words(tmp_path: Path) -> None:
    setting = conformance.synthetic_setting()
    with pytest.raises(ConfigError, match=r"vectors only(.|\n)*prompt.kind=residual"):
        build_method(quick(prompt=MappedTokens()), setting)
    for prompt in (
        {"kind": "tokens", "tokens": 0, "mapped": False},
        {"kind": "tokens", "shared": True, "orthogonality": 1.0},
        {"kind": "residual", "own": False},
    ):
        with pytest.raises(ConfigError):
            check(CGIL, {"kind": "cgil", "prompt": prompt})
    with pytest.raises(ConfigError, match="generator"):
        check(RealReplay, {"kind": "real_replay", "generator": {"kind": "vae"}})


def test_what_changes_numbers_changes_the_key() -> None:
    keys = [
        canonical(identity(spec))
        for spec in (
            CGIL(),
            CGIL(generator=DIAGONAL),
            CGIL(per_class=8),
            CGIL(input="unit"),
            CGIL(train="current"),
            CGIL(parity=True),
            CGIL(align=AlignPrompts(lr=0.03)),
            CGIL(align=AlignPrompts(precision="bf16")),
            CGIL(prompt=MappedTokens()),
            CGIL(prompt=MappedResidual()),
            RealReplay(),
            RealReplay(memory=RealVectors(per_class=4)),
        )
    ]
    assert len(set(keys)) == len(keys)
