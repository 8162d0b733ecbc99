"""DMC and DMC-OT: the encoder moves, memory follows, old images are gone, kills lose nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from raycl.backbones.encoder import Encoder, load_encoder
from raycl.compute.local_pool import LocalPool
from raycl.config.backbones import TINY_CLIP, Backbone
from raycl.config.dmc import (
    CALIBRATORS,
    DMC,
    DMCOT,
    MongeWithin,
    NoCalibration,
    TextStage,
    VisionStage,
)
from raycl.config.loading import check
from raycl.config.methods import Align, Finetune, TokenPrompt, ZeroShot
from raycl.config.streams import Validation
from raycl.errors import ConfigError, DataError, StoppedError, StoreError
from raycl.methods import conformance
from raycl.methods.build import build_method
from raycl.methods.context import Context
from raycl.methods.dmc import DMCMethod
from raycl.methods.method import Method, Setting
from raycl.methods.parts import gaussian_epochs
from raycl.methods.parts.gaussian_epochs import GaussianEpochs
from raycl.methods.parts.keys import unit
from raycl.methods.parts.stage_losses import ReplayLoss
from raycl.methods.parts.visual_lora import LoRA
from raycl.observe.events import nobody
from raycl.store.store import Store
from raycl.streams.source import Ints
from raycl.streams.stream import Pixels, Samples, Task, joined
from tests.backbones.made_backbones import save_backbone

CPU = torch.device("cpu")
TRAIN, TEST = 30, 15
TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
QUICK = TextStage(epochs=1, batch=32, per_class=16)
MOVING = VisionStage(epochs=2, lr=5e-3, batch=16, rank=2, alpha=4)


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return load_encoder(Backbone(name=TINY_CLIP), CPU)


def setting_of(encoder: Encoder | None, names: tuple[str, ...], text: Tensor) -> Setting:
    return Setting(
        class_names=names,
        text=unit(text),
        has_text=torch.ones(len(names), dtype=torch.bool),
        logit_scale=encoder.logit_scale if encoder else 100.0,
        init_seed=0,
        validation=Validation(seed=0),
        device=CPU,
        encoder=encoder,
    )


@pytest.fixture(scope="module")
def digits(tiny: Encoder) -> tuple[Setting, list[Task]]:
    """Some of scikit-learn's handwritten digits as images for tiny-CLIP, two at a time."""
    images, labels = load_digits(return_X_y=True)
    rows = {c: np.flatnonzero(labels == c)[: TRAIN + TEST] for c in range(10)}
    every = np.concatenate(list(rows.values()))
    grey = torch.from_numpy(images[every].reshape(-1, 1, 8, 8) / 16).float()
    pixels = torch.nn.functional.interpolate(grey, size=tiny.image_size, mode="bicubic")
    pixels = (pixels.clamp(0, 1).repeat(1, 3, 1, 1) - 0.5) / 0.5
    x, y = tiny.encode_images(pixels), torch.from_numpy(labels[every]).long()
    names = tuple(f"digit {c}" for c in range(10))
    setting = setting_of(tiny, names, tiny.encode_texts([f"a photo of a {n}." for n in names]))
    place = torch.arange(len(every)) % (TRAIN + TEST)

    def decode(rows: Ints) -> Tensor:
        return pixels[torch.from_numpy(rows)]

    def part(classes: tuple[int, ...], keep: Tensor) -> Samples:
        at = torch.nonzero(torch.isin(y, torch.tensor(classes)) & keep).flatten()
        return Samples(x[at], y[at], at.numpy(), Pixels(decode, at.numpy()))

    tasks = []
    for index, classes in enumerate(TASKS):
        train, test = part(classes, place < TRAIN), part(classes, place >= TRAIN)
        tasks.append(Task(index, classes, train=train, fit=train, held_out=test, test=test))
    return setting, tasks


def learn(method: Method[Any], tasks: list[Task], **lent: Any) -> Method[Any]:
    for task in tasks:
        method.seen = (*method.seen, *task.classes)
        method.learn(task.without_test(), Context(task.index, LocalPool(), nobody, **lent))
    return method


def accuracy(method: Method[Any], tasks: list[Task]) -> float:
    right, all_ = 0, 0
    for task in tasks:
        scores = method.seen_scores(method.vectors(task.test))
        found = torch.tensor(method.seen)[scores.argmax(dim=1)]
        right, all_ = right + int((found == task.test.y).sum()), all_ + len(task.test)
    return right / all_


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def quick(**changes: Any) -> DMCOT:
    return DMCOT(**{"text": QUICK, "vision": MOVING, **changes})


# On images


def test_they_learn_real_digits_and_the_encoder_moves(digits: tuple[Setting, list[Task]]) -> None:
    setting, tasks = digits
    zero_shot = accuracy(learn(build_method(ZeroShot(), setting), tasks), tasks)
    prompts = Finetune(align=Align(lr=0.002, epochs=5), prompt=TokenPrompt(tokens=16, shared=True))
    without_replay = accuracy(learn(build_method(prompts, setting), tasks), tasks)
    text = TextStage(per_class=128)
    for spec in (DMC(text=text), DMCOT(text=text)):
        method = learn(build_method(spec, setting), tasks)
        found = accuracy(method, tasks)
        assert found > zero_shot + 0.03, (spec.kind, found, zero_shot)
        assert found > without_replay + 0.1, (spec.kind, found, without_replay)
        assert method.figures["vision"] == "lora"
        assert float(method.figures["moved"] or 0) > 0.01
        assert method.figures["log_bw2"] is not None


def test_the_shared_tower_is_never_changed(digits: tuple[Setting, list[Task]]) -> None:
    setting, tasks = digits
    assert setting.encoder is not None
    before = {n: t.clone() for n, t in setting.encoder.visual.state_dict().items()}
    method = learn(build_method(quick(), setting), tasks[:2])
    assert same(before, setting.encoder.visual.state_dict())
    pixels = tasks[0].test.pixels
    assert pixels is not None
    again = setting.encoder.encode_images(pixels(np.arange(len(tasks[0].test))))
    assert torch.equal(again, tasks[0].test.x)
    assert not torch.allclose(method.vectors(tasks[0].test), again, atol=1e-3)


def test_lora_begins_as_the_frozen_tower(digits: tuple[Setting, list[Task]]) -> None:
    setting, tasks = digits
    method = build_method(DMC(), setting)
    assert isinstance(method, DMCMethod) and isinstance(method.vision, LoRA)
    assert torch.equal(method.vectors(tasks[0].test), tasks[0].test.x)
    blocks, width = 4, 160
    assert [tuple(t.shape) for t in method.vision.at.tensors] == [
        (blocks, 2, 8, width),
        (blocks, 2, width, 8),
    ]
    # Merged weights are W + (α / r) B A on q and v; k stays.
    at = method.vision.at.copy()
    at.up.normal_(generator=torch.Generator().manual_seed(0))
    name, weight = method.vision.names[1], method.vision.weights[1]
    moved = method.vision._merged(at)[name] - weight
    assert torch.allclose(moved[:width], 2.0 * at.up[1, 0] @ at.down[1, 0], atol=1e-6)
    assert torch.allclose(moved[2 * width :], 2.0 * at.up[1, 1] @ at.down[1, 1], atol=1e-6)
    assert not moved[width : 2 * width].any()


def test_a_vector_does_not_depend_on_its_neighbours(digits: tuple[Setting, list[Task]]) -> None:
    setting, tasks = digits
    method, test = learn(build_method(quick(), setting), tasks[:1]), tasks[0].test
    assert test.pixels is not None
    whole = method.vectors(test)
    few = np.array([7, 2])
    part = replace(test, x=test.x[few], pixels=Pixels(test.pixels.decode, test.pixels.images[few]))
    assert torch.equal(method.vectors(part), whole[torch.from_numpy(few)])


@pytest.mark.parametrize("order", ["vision_text", "text_vision", "coupled"])
def test_on_images_a_stop_anywhere_and_a_restore_change_nothing(
    digits: tuple[Setting, list[Task]], order: str
) -> None:
    setting, tasks = digits
    spec = quick(order=order)
    first = learn(build_method(spec, setting), tasks[:1])
    through = learn(build_method(spec, setting), tasks[:2])
    saved: dict[str, Mapping[str, Tensor]] = {}
    stops = 0
    while True:
        method = build_method(spec, setting)
        method.seen = first.seen
        method.restore({n: t.clone() for n, t in first.state().items()})
        lent = {"load_partial": saved.get, "save_partial": saved.__setitem__}
        try:
            learn(method, tasks[1:2], stopping=lambda: True, **lent)
        except StoppedError:
            stops += 1
            assert stops < 50
            continue
        break
    assert stops >= 3
    assert same(method.state(), through.state())
    x = method.vectors(tasks[0].test)
    assert torch.equal(x, through.vectors(tasks[0].test))
    assert torch.equal(method.seen_scores(x), through.seen_scores(x))


def test_images_are_asked_for_and_their_absence_told(digits: tuple[Setting, list[Task]]) -> None:
    setting, tasks = digits
    given = replace(tasks[0].train, pixels=None)
    task = replace(tasks[0], train=given, fit=given)
    with pytest.raises(DataError, match="needs images"):
        learn(build_method(DMC(), setting), [task])
    vectors = replace(setting, encoder=None)
    with pytest.raises(ConfigError, match="vectors only"):
        build_method(DMC(vision=VisionStage(adapter="lora")), vectors)
    text = replace(setting, has_text=torch.zeros(10, dtype=torch.bool))
    with pytest.raises(DataError, match="text vector for every class"):
        build_method(DMC(), text)
    with pytest.raises(ConfigError, match="epochs=0"):
        check(DMC, {"order": "coupled", "vision": {"epochs": 0}})
    method = learn(build_method(DMC(vision=VisionStage(epochs=0), text=QUICK), setting), [task])
    assert method.figures["vision"] == "still" and method.figures["log_bw2"] is None
    assert method.vectors(given) is given.x


def test_a_convolutional_tower_is_refused(digits: tuple[Setting, list[Task]]) -> None:
    setting, _ = digits

    class Convolutional:
        visual = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))

    with pytest.raises(ConfigError, match="vision transformer"):
        LoRA(VisionStage(), setting, Convolutional())  # type: ignore[arg-type]


# Without images


SHORT = TextStage(epochs=1, per_class=24)


@pytest.mark.parametrize(
    "spec",
    [
        DMC(text=SHORT),
        DMC(text=SHORT, order="text_vision"),
        DMCOT(text=SHORT, order="coupled"),
        DMC(text=SHORT, vision=VisionStage(epochs=0)),
        DMCOT(text=SHORT, task_prompts=False),
        *[DMCOT(text=SHORT, calibrator=calibrator()) for calibrator in CALIBRATORS],
    ],
    ids=repr,
)
def test_on_vectors_the_contract_holds(spec: Any) -> None:
    findings = conformance.check_method(lambda setting: build_method(spec, setting))
    assert {f.what: f.fault for f in findings if not f.ok} == {}


@pytest.mark.parametrize(
    "spec",
    [DMC(text=SHORT), DMCOT(text=SHORT), DMCOT(text=SHORT, task_tokens=0)],
    ids=repr,
)
def test_with_a_text_tower_the_contract_holds(tmp_path: Path, spec: Any) -> None:
    encoder = load_encoder(save_backbone(tmp_path, embed_dim=conformance.WIDTH), CPU)
    spec = spec.model_copy(update={"vision": VisionStage(adapter="residual")})
    findings = conformance.check_method(
        lambda setting: build_method(spec, replace(setting, encoder=encoder))
    )
    assert {f.what: f.fault for f in findings if not f.ok} == {}


def synthetic(spec: Any, tasks: int = 4, **lent: Any) -> DMCMethod:
    setting = conformance.synthetic_setting()
    method = build_method(spec, setting)
    learn(method, list(conformance.synthetic_tasks(setting))[:tasks], **lent)
    assert isinstance(method, DMCMethod)
    return method


def test_without_calibration_and_task_prompts_it_is_dmc_to_the_bit(
    digits: tuple[Setting, list[Task]],
) -> None:
    plain = DMCOT(calibrator=NoCalibration(), task_prompts=False, separability=0, text=SHORT)
    assert same(synthetic(plain).state(), synthetic(DMC(text=SHORT)).state())
    setting, tasks = digits
    on_images = [
        learn(build_method(spec, setting), tasks[:2])
        for spec in (
            quick(calibrator=NoCalibration(), task_prompts=False, separability=0),
            DMC(text=QUICK, vision=MOVING),
        )
    ]
    assert same(on_images[0].state(), on_images[1].state())


def test_learning_a_task_again_leaves_the_state_as_it_is() -> None:
    spec = DMCOT(text=SHORT)
    start, tasks = synthetic(spec, 2), list(conformance.synthetic_tasks(synthetic(spec, 0).setting))
    found = []
    for _ in range(2):
        method = build_method(spec, start.setting)
        method.seen = start.seen
        method.restore(start.state())
        found.append(learn(method, tasks[2:3]).state())
    assert same(*found)


# Memory


def test_covariances_lie_in_the_store_and_are_read_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path / "store"), nobody)
    here, stored = synthetic(DMCOT(text=SHORT)), synthetic(DMCOT(text=SHORT), store=store)
    roots = {name for name in here.state() if name.startswith("memory.root.")}
    assert len(roots) == 5 and not roots & set(stored.state())
    for name in set(here.state()) - roots:
        assert torch.equal(here.state()[name], stored.state()[name]), name
    width = conformance.WIDTH
    each = 4 * (width + width * (width + 1) // 2)
    assert list(stored.stored.values()) == [each] * 5 and here.stored == {}
    assert all(store.record(key) is not None for key in stored.stored)
    # Nothing keeps what was read.
    reads: list[str] = []
    get = store.get
    monkeypatch.setattr(store, "get", lambda spec, **kw: reads.append(spec.key) or get(spec, **kw))
    for _ in range(2):
        stored.memory.covariance(0, store)
    assert len(reads) == 2


def test_statistics_that_are_gone_are_told(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), nobody)
    method = synthetic(DMC(text=SHORT), 2, store=store)
    store.discard(next(iter(method.stored)))
    with pytest.raises(StoreError, match="not in the store"):
        learn(method, list(conformance.synthetic_tasks(method.setting))[2:3], store=store)


def test_what_is_kept_of_a_class_is_not_written_again() -> None:
    early, late = (synthetic(DMCOT(text=SHORT), tasks).state() for tasks in (2, 3))
    kept = [n for n in early if n.startswith(("memory.root.", "memory.maps."))]
    assert kept and all(torch.equal(early[n], late[n]) for n in kept)
    first, count = "memory.first_means", len(early["memory.means"])
    assert not torch.equal(early["memory.means"], late["memory.means"][:count])
    assert torch.equal(early[first], late[first][:count])


def test_draws_follow_the_calibrated_statistics() -> None:
    method = synthetic(DMCOT(text=SHORT, vision=VisionStage(lr=0.05, epochs=20)))
    memory, generator = method.memory, torch.Generator().manual_seed(0)
    for index, c in enumerate(memory.classes):
        x = memory.draw(index, 20000, generator, None)
        expected = memory.covariance(index, None).float()
        assert torch.allclose(x.mean(dim=0), memory.means[index], atol=0.02), c
        assert torch.allclose(torch.cov(x.T), expected, atol=0.05 * float(expected.trace())), c
    assert len(memory.maps) >= 2


def test_every_class_counts_the_same_and_real_vectors_come_first() -> None:
    method = synthetic(DMC(text=SHORT))
    memory, width = method.memory, conformance.WIDTH
    newest = memory.classes[-1]
    real = unit(torch.randn(5, width, generator=torch.Generator().manual_seed(1)))
    y = torch.full((5,), newest)
    context = Context(3, LocalPool(), nobody)
    epochs = GaussianEpochs(memory, (real, y), 8, 7, context)
    x, ids = (
        torch.cat(p) for p in zip(*(epochs.rows(s) for s in range(epochs.per_epoch)), strict=True)
    )
    assert torch.bincount(ids)[list(memory.classes)].tolist() == [8] * len(memory.classes)
    assert torch.allclose(x.norm(dim=1), torch.ones(len(x)), atol=1e-5)
    there = torch.cdist(real, x[ids == newest]).min(dim=1).values
    assert float(there.max()) < 1e-5, "all five real vectors are in the epoch"
    again = GaussianEpochs(memory, (real, y), 8, 7, context)
    assert torch.equal(again.rows(9)[0], epochs.rows(9)[0]), "any step can be made again"


def test_parts_bound_what_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    method = synthetic(DMC(text=SHORT))
    nothing = torch.empty(0, conformance.WIDTH), torch.empty(0, dtype=torch.long)
    one_class = 10 * conformance.WIDTH * 4
    monkeypatch.setattr(gaussian_epochs, "PART_BYTES", one_class)
    epochs = GaussianEpochs(method.memory, nothing, 10, 4, Context(3, LocalPool(), nobody))
    assert len(epochs.steps) == len(method.memory.classes)
    counts = torch.zeros(7, dtype=torch.long)
    for step in range(epochs.per_epoch):
        counts += torch.bincount(epochs.rows(step)[1], minlength=7)
        assert epochs.x.nbytes <= one_class
    assert counts[list(method.memory.classes)].tolist() == [10] * len(method.memory.classes)


def test_five_thousand_classes_are_streamed(tmp_path: Path) -> None:
    """The state holds no covariance, and a pass holds no more than a part."""
    classes, width = 5000, 64
    names = tuple(f"class {c}" for c in range(classes))
    text = torch.randn(classes, width, generator=torch.Generator().manual_seed(0))
    method = build_method(DMC(text=SHORT), setting_of(None, names, text))
    assert isinstance(method, DMCMethod)
    memory, store = method.memory, Store.open(str(tmp_path / "store"), nobody)
    x = text[:60].repeat_interleave(3, dim=0)
    y = torch.arange(60).repeat_interleave(3)
    memory.learn(x, y, tuple(range(60)), Context(0, LocalPool(), nobody, store=store))
    held = sum(t.nbytes for t in memory.state().values()) / 60
    assert held < 2 * width * 4 + 64, "of a class: two means, a count, a task and a digest"
    per_class = 4 * (width + width * (width + 1) // 2)
    assert sum(memory.stored.values()) == 60 * per_class


# Prompts


def test_old_prompts_are_frozen_and_new_ones_their_own(digits: tuple[Setting, list[Task]]) -> None:
    setting, tasks = digits
    spec = quick(vision=VisionStage(epochs=0))
    early, late = (learn(build_method(spec, setting), tasks[:n]) for n in (1, 2))
    assert isinstance(early, DMCMethod) and isinstance(late, DMCMethod)
    for name, tensor in early.head.state(early.seen).items():
        assert torch.equal(late.head.state(late.seen)[name], tensor), name
    assert torch.equal(early.head.all_keys()[[0, 1]], late.head.all_keys()[[0, 1]])
    assert torch.equal(early.head.all_keys()[2:], setting.text[2:]), "never trained: the text"
    assert tuple(late.state()["prompts.1.own"].shape) == (2, 12, 128)
    assert tuple(late.state()["prompts.1.task"].shape) == (1, 12, 128)
    shared = learn(build_method(quick(task_prompts=False), setting), tasks[:2])
    assert tuple(shared.state()["own"].shape) == (1, 16, 128)


def test_the_hinge_counts_only_what_came_nearer_than_its_text() -> None:
    method = synthetic(DMCOT(text=SHORT), 3)
    setting, space = method.setting, method.memory.classes
    nothing = torch.empty(0, conformance.WIDTH), torch.empty(0, dtype=torch.long)
    epochs = GaussianEpochs(method.memory, nothing, 8, 8, Context(2, LocalPool(), nobody))
    loss = ReplayLoss(epochs, space, space[-1:], 1.0)
    text = setting.text[list(space)]
    assert float(loss.nearness(text)) == 0.0
    nearer = text.clone()
    nearer[-1] = text[0]
    expected = (text[0] @ text[:-1].T - text[-1] @ text[:-1].T).clamp_min(0).mean()
    assert float(loss.nearness(nearer)) == pytest.approx(float(expected))
    assert float(loss(0, nearer)) > float(ReplayLoss(epochs, space, space[-1:], 0.0)(0, nearer))
    assert not ReplayLoss(epochs, space, space, 1.0).hinges, "no older class"


def test_figures_of_tests_are_means_apart_and_change_nothing() -> None:
    method = synthetic(DMCOT(text=SHORT, calibrator=MongeWithin()), 3)
    tasks = list(conformance.synthetic_tasks(method.setting))[:3]
    before = {n: t.clone() for n, t in method.state().items()}
    tests = joined([task.test for task in tasks])
    x = method.vectors(tests)
    found = method.figures_of_tests(tests, x)
    errors = []
    for index, c in enumerate(method.memory.classes):
        if method.memory.born[index] < 2:
            true = unit(x[tests.y == c]).mean(dim=0)
            errors.append(float((method.memory.means[index] - true).norm()))
    assert found["mean_error_old"] == pytest.approx(sum(errors) / len(errors))
    assert set(found) == {"mean_error_old", "mean_error_uncalibrated", "mean_error_new"}
    assert same(before, method.state())
