"""CLTS: what is remembered, how it is routed, and that the newest task draws no more than fair."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from raycl.compute.local_pool import LocalPool
from raycl.config.captions import AttributesCaptioner, Captioning, TemplateCaptioner
from raycl.config.clts import CLTS, EnergyRouter, Heads, NaiveRouter, NCMRouter, TrainedRouter
from raycl.config.loading import check
from raycl.config.seeds import rng
from raycl.errors import ConfigError, StoppedError
from raycl.methods.build import build_method
from raycl.methods.clts import CLTSMethod, energies
from raycl.methods.conformance import check_method, synthetic_setting
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts import image_memory
from raycl.methods.parts.image_memory import ImageMemory, Remembered, brought_down
from raycl.methods.parts.keys import unit
from raycl.methods.parts.routing import Routed, head_shares, routed_scores
from raycl.methods.parts.task_router import Balanced, Network
from raycl.observe.events import nobody
from raycl.store.store import Store
from raycl.streams.stream import joined
from tests.methods.made_pictures import Painter, PictureBench, learn, seeing
from tests.methods.made_tasks import accuracy, made_setting, made_tasks

WEIGHTS = SimpleNamespace(weight_bytes=1000)
CUT = ((0, 3), (1, 4), (2, 5))
PLAIN = Captioning(captioner=TemplateCaptioner(template="a {}"), per_class=6, duplicates="keep")
QUICK = {"least_steps": 150, "epochs": 2}
TRAINED = TrainedRouter(hidden=32, **QUICK)
SHORT: dict[str, Any] = {
    "captions": PLAIN,
    "heads": Heads(**QUICK),
    "router": TRAINED,
    "images_per_caption": 3,
}

FEW = {"least_steps": 12, "epochs": 1}
TINY = {**SHORT, "heads": Heads(**FEW), "router": TrainedRouter(hidden=16, **FEW)}

VARIANTS = [
    CLTS(**TINY),
    CLTS(**{**TINY, "replay": "real"}, routing="soft"),
    CLTS(**{**TINY, "replay": "mixed"}, unseen="gate", shift="task"),
    CLTS(**{**TINY, "router": NaiveRouter(hidden=16, **FEW)}),
    CLTS(**{**TINY, "router": NCMRouter()}, shift="none"),
    CLTS(**{**TINY, "router": EnergyRouter()}),
    CLTS(**TINY, classifier="joint"),
]


@pytest.fixture
def setting() -> Setting:
    return seeing(made_setting())


@pytest.fixture
def painter(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Painter:
    made = Painter(setting)
    monkeypatch.setattr(image_memory.painting, "synthesise", made)
    monkeypatch.setattr("raycl.methods.clts.model_files", lambda spec: WEIGHTS)
    return made


@pytest.mark.parametrize("spec", VARIANTS, ids=lambda s: f"{s.replay}-{s.router.kind}-{s.routing}")
def test_it_holds_the_contract(spec: CLTS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_memory.painting, "synthesise", Painter(synthetic_setting()))
    findings = check_method(lambda setting: build_method(spec, setting), PictureBench)
    assert {f.what: f.fault for f in findings if not f.ok} == {}


def test_vectors_without_images_are_refused_in_words() -> None:
    with pytest.raises(ConfigError, match=r"vectors only.*\n.*digits"):
        build_method(CLTS(), made_setting())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "a photo"}, "holds {class}"),
        ({"template": "{class} {oops}"}, "no other braces"),
        ({"classifier": "joint", "routing": "soft"}, "has no router"),
        ({"router": {"kind": "trianed"}}, "trained"),
        ({"replay": "fake"}, "real"),
        ({"captions": {"per_class": 0}}, "per_class"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(CLTS, options)


def shares(rows: int, tasks: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(rows, tasks, generator=random)).log_softmax(dim=1)


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_is_the_sum_of_routed_right_times_head_right(seed: int) -> None:
    """The identity, on random routers and heads of unequal tasks; and the oracle bounds it."""
    task_of = torch.tensor([0, 0, 0, 1, 2, 2, 3])
    logits = 2 * torch.randn(500, 7, generator=torch.Generator().manual_seed(100 + seed))
    label = torch.randint(0, 7, (500,), generator=torch.Generator().manual_seed(200 + seed))
    log_shares, log_heads = shares(500, 4, seed), head_shares(logits, task_of)
    figures = Routed.of(log_shares, log_heads, task_of, label).figures()
    scores = routed_scores(log_shares, log_heads, task_of, hard=True)
    measured = 100 * float((scores.argmax(dim=1) == label).float().mean())
    terms = [
        [figures[f"task_{t}.{name}"] for name in ("share", "routed", "head_if_routed")]
        for t in range(1, 5)
    ]
    summed = sum(float(a or 0) * float(b or 0) * float(c or 0) for a, b, c in terms) / 1e4
    assert summed == pytest.approx(measured, abs=1e-4)
    assert figures["accuracy_hard"] == pytest.approx(measured, abs=1e-4)
    assert figures["accuracy_oracle"] >= figures["accuracy_hard"]  # type: ignore[operator]
    soft = routed_scores(log_shares, log_heads, task_of, hard=False).argmax(dim=1) == label
    assert figures["accuracy_soft"] == pytest.approx(100 * float(soft.float().mean()), abs=1e-4)
    marginal = float(figures["router_accuracy"] or 0) * float(figures["accuracy_oracle"] or 0) / 100
    assert marginal != pytest.approx(measured, abs=0.1), "a product of marginals is another number"


def test_the_chosen_head_stands_before_all_others() -> None:
    task_of = torch.tensor([0, 0, 1, 1])
    log_shares = torch.tensor([[0.4, 0.6]]).log()
    log_heads = head_shares(torch.tensor([[9.0, -9.0, 0.1, 0.0]]), task_of)
    hard = routed_scores(log_shares, log_heads, task_of, hard=True)
    assert hard.argsort(dim=1, descending=True).tolist() == [[2, 3, 0, 1]]
    soft = routed_scores(log_shares, log_heads, task_of, hard=False)
    assert soft.argmax(dim=1).tolist() == [0]
    assert soft.exp().sum() == pytest.approx(1.0)


def test_energy_routes_to_the_surest_head() -> None:
    found = energies(torch.tensor([[1.0, 5.0, 2.0, 2.5]]), torch.tensor([0, 0, 1, 1]), 1.0)
    assert found.argmax().item() == 0 and found.exp().sum() == pytest.approx(1.0)
    unknown = energies(torch.tensor([[float("-inf")] * 2]), torch.tensor([0, 1]), 1.0)
    assert not unknown.isnan().any()


def test_it_learns_and_the_naive_router_forgets(setting: Setting, painter: Painter) -> None:
    tasks = made_tasks(setting, CUT, noise=0.15)
    found = {}
    for name, router in (("trained", TRAINED), ("naive", NaiveRouter(hidden=32, **QUICK))):
        method = learn(build_method(CLTS(**{**SHORT, "router": router}), setting), tasks)
        found[name] = accuracy(method, tasks)
        tests = joined([task.test for task in tasks])
        figures = method.figures_of_tests(tests, tests.x)
        assert figures["accuracy_hard"] == pytest.approx(100 * found[name], abs=1e-3)
        found[f"{name} to newest"] = figures["old_to_newest"]
        found[f"{name} fair"] = figures["fair_to_newest"]
    assert found["trained"] > max(found["naive"] + 0.25, 0.9), found
    assert found["naive to newest"] > found["naive fair"] + 20, found
    assert abs(found["trained to newest"] - found["trained fair"]) < 10, found


@pytest.mark.parametrize("shift", ["none", "task"])
def test_the_newest_task_is_seen_through_synthetic_images_too(
    setting: Setting, painter: Painter, monkeypatch: pytest.MonkeyPatch, shift: str
) -> None:
    """All that the router meets was drawn: never a real vector, of whichever task."""
    met: list[tuple[Tensor, Tensor]] = []
    train = Network.learn

    def watched(self: Network, x: Tensor, y: Tensor, *more: Any) -> None:
        met.append((x, y))
        train(self, x, y, *more)

    monkeypatch.setattr(Network, "learn", watched)
    tasks = made_tasks(setting, CUT)
    method = learn(build_method(CLTS(**SHORT, shift=shift), setting), tasks)
    real = torch.nn.functional.normalize(joined([task.train for task in tasks]).x)
    for stage, (x, y) in enumerate(met):
        assert set(y.tolist()) == {c for cut in CUT[: stage + 1] for c in cut}
        assert float((torch.nn.functional.normalize(x) @ real.T).max()) < 0.9999
    assert torch.equal(met[-1][0], method.memory.vectors(None)[0])


def test_a_router_that_met_real_images_of_one_task_sends_all_real_ones_there(
    setting: Setting,
) -> None:
    """The trap. What is drawn differs from what is real in one trait, here the last column; the
    tests are real. Ours meets drawn vectors of every task, the trapped one real ones of the
    newest."""
    centres = rng(0, "trap").normal(size=(3, setting.width))
    task_of = torch.tensor([0, 1, 2, -1, -1, -1])
    y = torch.arange(3).repeat_interleave(60)

    def vectors(purpose: str, drawn: Tensor) -> Tensor:
        noise = rng(0, "trap", purpose).normal(size=(len(y), setting.width))
        x = torch.from_numpy(0.6 * centres[y] + noise).float()
        x[:, -1] = torch.where(drawn, 12.0, -12.0) + 0.1 * x[:, -1]
        return x

    every, old = torch.ones(len(y), dtype=torch.bool), y < 2
    tests = vectors("tests", ~every)

    def to_newest(drawn: Tensor) -> float:
        router = Network(TRAINED, setting)
        router.learn(vectors("train", drawn), y, task_of, Context(2, LocalPool(), nobody))
        sent = router.log_shares(tests[old]).argmax(dim=1)
        return float((sent == 2).float().mean())

    ours, trapped = to_newest(every), to_newest(old)
    assert trapped > 0.9 and ours < 0.6, (ours, trapped)


def test_the_shift_brings_what_is_drawn_to_where_real_vectors_lie(
    setting: Setting, painter: Painter
) -> None:
    painter.off = 0.5
    tasks = made_tasks(setting, CUT, noise=0.15)

    def gaps(shift: str) -> tuple[float, float]:
        """Mean distance of drawn and real means: of classes, and of tasks."""
        method = learn(build_method(CLTS(**SHORT, shift=shift), setting), tasks)
        drawn, kinds = method.memory.vectors(None)
        real = joined([task.train for task in tasks])

        def gap(classes: tuple[int, ...]) -> float:
            both = ((drawn, kinds), (real.x, real.y))
            means = [
                torch.stack([unit(x[y == c]).mean(dim=0) for c in classes]).mean(dim=0)
                for x, y in both
            ]
            return float((means[0] - means[1]).norm())

        of_classes = [gap((c,)) for cut in CUT for c in cut]
        return float(np.mean(of_classes)), float(np.mean([gap(cut) for cut in CUT]))

    none, task, single = gaps("none"), gaps("task"), gaps("class")
    assert none[1] > 0.3 and task[1] < 0.3 * none[1] and single[0] < 0.2 * none[0]
    assert task[0] < none[0]


def test_prompts_come_from_captions_and_their_seeds(setting: Setting) -> None:
    kept = Remembered(("a red one", "a blue one"), (11, 12), (2, 2), {2: (8, 8)})
    encoder: Any = setting.encoder
    for prompt, text in (
        ("a photo of a {class}, {caption}", "a photo of a class 2, a red one"),
        ("{caption}", "a red one"),
    ):
        memory = ImageMemory(CLTS(template=prompt, images_per_caption=2), setting, encoder)
        prompts, labels = memory.prompts(kept)
        assert [p.text for p in prompts[:2]] == [text] * 2 and labels == [2] * 4
        assert prompts[0].seed == 11 and len({p.seed for p in prompts}) == 4
    assert len(ImageMemory(CLTS(), setting, encoder).prompts(kept)[0]) == 100
    many = Remembered(("a",) * 50, tuple(range(50)), (2,) * 50, {2: (8, 8)})
    assert len(ImageMemory(CLTS(), setting, encoder).prompts(many)[0]) == 50


def test_a_class_name_that_looks_like_a_place_is_a_name(setting: Setting) -> None:
    from dataclasses import replace

    odd = replace(setting, class_names=("{caption}", *setting.class_names[1:]))
    encoder: Any = setting.encoder
    kept = Remembered(("a {class}",), (1,), (0,), {0: (8, 8)})
    prompts, _ = ImageMemory(CLTS(), odd, encoder).prompts(kept)
    assert prompts[0].text == "a photo of a {caption}, a {class}"


def test_images_are_brought_down_and_never_up() -> None:
    image = Image.new("RGB", (64, 32))
    assert brought_down(image, (8, 8)).size == (16, 8)
    assert brought_down(image, (500, 300)) is image
    assert brought_down(Image.new("RGB", (512, 512)), (1, 1)).size == (1, 1)


def test_the_resolution_of_synthetic_images_is_the_classs_own(
    setting: Setting, painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.methods.made_pictures import Painted

    image = Painted.image
    monkeypatch.setattr(Painted, "image", lambda self, n: image(self, n).resize((64, 64)))
    tasks = made_tasks(setting, CUT)[:1]
    seen = setting.encoder.seen  # type: ignore[union-attr]
    learn(build_method(CLTS(**SHORT), setting), tasks)
    assert set(seen) == {(1, 1)}, "a picture of this world is a row: its shorter side is 1"
    seen.clear()
    learn(build_method(CLTS(**SHORT, resize=False), setting), tasks)
    assert set(seen) == {(64, 64)}


def test_state_holds_captions_and_no_synthetic_image(
    setting: Setting, painter: Painter, tmp_path: Path
) -> None:
    tasks = made_tasks(setting, CUT)
    method = learn(
        build_method(CLTS(**SHORT), setting), tasks, store=Store.open(str(tmp_path / "store"))
    )
    state, figures = method.state(), method.figures
    texts = b"\n".join(state[f"memory.{t}.captions"].numpy().tobytes() for t in range(3))
    assert texts.decode().split("\n").count("a class 3") == 6
    memory = sum(t.nbytes for name, t in state.items() if name.startswith("memory."))
    assert figures["caption_bytes"] == 6 * 6 * (len("a class 0") + 8 + 4)
    overhead = 6 * 12 + 3 * 8 + 6 * 16 * 4 + len(texts)
    assert memory <= figures["caption_bytes"] + overhead, "nothing else is in it"
    assert figures["captioned_image_bytes"] == 6 * 6 * 16 * 3
    assert figures["head_bytes"] == 6 * (16 + 1) * 4 + 6
    assert figures["router_bytes"] > 0 and figures["generator_bytes"] >= 0
    asked = len(painter.asked)
    again = build_method(CLTS(**SHORT), setting)
    again.seen = method.seen
    again.restore({name: tensor.clone() for name, tensor in state.items()})
    assert (
        isinstance(again, CLTSMethod)
        and again.memory.tasks[1].texts == ("a class 1",) * 6 + ("a class 4",) * 6
    )
    first = method.memory.vectors(None)
    second = again.memory.vectors(Context(3, LocalPool(), nobody))
    assert len(painter.asked) == 2 * asked, "painted again from captions and seeds"
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_control_keeps_the_very_images_that_would_be_captioned(
    setting: Setting, painter: Painter
) -> None:
    tasks = made_tasks(setting, CUT)
    real = learn(build_method(CLTS(**{**SHORT, "replay": "real"}), setting), tasks)
    assert not painter.asked
    assert real.figures["kept_images"] == 36 and real.figures["caption_bytes"] == 0
    assert real.figures["kept_image_bytes"] == 36 * (16 * 3 + 4)
    x, y = real.memory.vectors(None)
    own = torch.nn.functional.normalize(tasks[0].train.x)
    for row in x[torch.isin(y, torch.tensor(CUT[0]))]:
        assert float((own @ row).max()) > 0.999, "pictures of training samples"
    half = learn(build_method(CLTS(**{**SHORT, "replay": "mixed"}), setting), tasks)
    assert half.figures["kept_images"] == 18 and half.figures["captions"] == 18


def test_images_that_are_left_out_are_missing_and_nothing_else(
    setting: Setting, painter: Painter
) -> None:
    tasks = made_tasks(setting, CUT)[:1]
    whole = learn(build_method(CLTS(**SHORT, shift="none"), setting), tasks)
    painter.left_out = (0, 5)
    some = learn(build_method(CLTS(**SHORT, shift="none"), setting), tasks)
    a, b = whole.memory.vectors(None)[0], some.memory.vectors(None)[0]
    kept = [i for i in range(len(a)) if i not in (0, 5)]
    assert torch.equal(a[kept], b)


def test_classes_count_alike_however_few_images_they_have(setting: Setting) -> None:
    y = torch.tensor([0] * 7 + [1] * 2 + [4])
    rows = Balanced(y, setting, 0)
    assert rows.count == 21
    drawn = y[rows.epoch(0)]
    assert [int((drawn == c).sum()) for c in (0, 1, 4)] == [7, 7, 7]
    assert sorted(rows.epoch(0)[drawn == 0].tolist()) == list(range(7)), "each of its own once"
    assert not torch.equal(rows.epoch(1), rows.epoch(0))
    assert torch.equal(Balanced(y, setting, 0).epoch(1), rows.epoch(1))


def test_a_stop_in_the_router_continues_to_the_same_layers(
    setting: Setting, painter: Painter
) -> None:
    tasks = made_tasks(setting, CUT)
    whole = learn(build_method(CLTS(**SHORT), setting), tasks).state()
    saved: dict[str, Any] = {}
    lent = {"save_partial": saved.__setitem__, "load_partial": saved.get}
    method = learn(build_method(CLTS(**SHORT), setting), tasks[:2])
    start = {name: tensor.clone() for name, tensor in method.state().items()}
    asked = iter(range(10**6))
    with pytest.raises(StoppedError, match="router"):
        learn(method, tasks, 2, **lent, stopping=lambda: next(asked) > 250)
    assert "router" in saved
    again = build_method(CLTS(**SHORT), setting)
    again.seen = tuple(c for t in tasks[:2] for c in t.classes)
    again.restore(start)
    state = learn(again, tasks, 2, **lent).state()
    assert all(torch.equal(state[name], whole[name]) for name in whole)


def test_attribute_captions_are_what_is_stored(setting: Setting, painter: Painter) -> None:
    """Of the real captioner, whose CLIP is the backbone's: pictures of this world are grey."""
    said = Captioning(captioner=AttributesCaptioner(slots=("ink", "ground")), per_class=4)
    method = build_method(CLTS(**{**SHORT, "captions": said}), setting)
    learn(method, made_tasks(setting, CUT)[:1])
    texts = method.memory.tasks[0].texts
    assert texts and all(text.startswith("a ") and "class" in text for text in texts)
    assert all("class" in prompt.text for prompt in painter.asked)


def test_figures_of_no_test_are_none() -> None:
    figures = Routed.of(
        torch.zeros(0, 2), torch.zeros(0, 2), torch.tensor([0, 1]), torch.zeros(0, dtype=torch.long)
    ).figures()
    assert all(value is None for value in figures.values())
