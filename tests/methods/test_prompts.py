"""Soft prompts through a real text tower: exact when cut, trained, stopped and resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raycl.backbones.encoder import Encoder, load_encoder
from raycl.compute.local_pool import LocalPool
from raycl.config.backbones import TINY_CLIP, Backbone
from raycl.config.methods import Align, Finetune, Joint, ResidualPrompt, TokenPrompt
from raycl.config.spec import canonical, identity
from raycl.config.streams import Validation
from raycl.errors import ConfigError, DataError, MethodError, StoppedError
from raycl.methods import conformance
from raycl.methods.build import build_method
from raycl.methods.context import Context
from raycl.methods.method import Method, Setting
from raycl.methods.parts import prompts as module
from raycl.methods.parts.keys import unit
from raycl.methods.parts.prompts import PromptAssembly, PromptLearner
from raycl.observe.events import nobody
from raycl.streams.stream import Samples, Task
from tests.backbones.made_backbones import save_backbone

CPU = torch.device("cpu")
NAMES = ("cat", "very old dog", "a hat, of the kind that is worn at sea", "tree", "blue car")
ALL = tuple(range(len(NAMES)))


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return load_encoder(Backbone(name=TINY_CLIP), CPU)


@pytest.fixture(scope="module")
def bidirectional(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("bidirectional")
    return load_encoder(save_backbone(folder, no_causal_mask=True), CPU)


def setting_of(encoder: Encoder | None, names: tuple[str, ...] = NAMES) -> Setting:
    if encoder is None:
        text = torch.eye(len(names))
    else:
        text = unit(encoder.encode_texts([f"a photo of a {name}." for name in names]))
    return Setting(
        class_names=names,
        text=text,
        has_text=torch.ones(len(names), dtype=torch.bool),
        logit_scale=30.0,
        init_seed=0,
        validation=Validation(seed=0),
        device=CPU,
        encoder=encoder,
    )


def samples(setting: Setting, classes: tuple[int, ...], each: int = 12, seed: int = 0) -> Samples:
    """Clusters whose centres lie elsewhere than the text vectors."""
    generator = torch.Generator().manual_seed(77)
    centres = unit(torch.randn(setting.text.shape, generator=generator))
    noise = torch.Generator().manual_seed(seed)
    y = torch.tensor([c for c in classes for _ in range(each)])
    x = centres[y] + 0.04 * torch.randn(len(y), setting.width, generator=noise)
    return Samples(x, y, np.arange(len(y)))


def learn(method: Method[Any], index: int, classes: tuple[int, ...], **lent: Any) -> Method[Any]:
    method.seen = (*method.seen, *(c for c in classes if c not in method.seen))
    data = samples(method.setting, classes, seed=index)
    task = Task(index, classes, train=data, fit=data, held_out=data, test=data)
    method.learn(task, Context(index, LocalPool(), nobody, **lent))
    return method


def tokens_spec(kind: type[Finetune] | type[Joint] = Joint, **prompt: Any) -> Finetune | Joint:
    align = Align(lr=0.05, epochs=25, batch=16)
    return kind(prompt=TokenPrompt(**prompt), align=align)


def accuracy(method: Method[Any], classes: tuple[int, ...] = ALL) -> float:
    test = samples(method.setting, classes, seed=1000)
    found = torch.tensor(method.seen)[method.seen_scores(test.x).argmax(dim=1)]
    return float((found == test.y).float().mean())


@pytest.mark.parametrize("name", [TINY_CLIP, "ViT-S-32-alt:random"])
def test_a_cut_prompt_has_the_keys_and_gradients_of_a_whole_one(name: str) -> None:
    tower = load_encoder(Backbone(name=name), CPU).text
    soft = torch.randn(len(NAMES), 3, tower.token_width, generator=torch.Generator().manual_seed(0))
    keys, gradients, lengths = [], [], []
    for truncate in (True, False):
        between = (0.02 * soft).requires_grad_()
        prompts = PromptAssembly(tower, NAMES, 3, truncate=truncate).of(torch.tensor(ALL))
        out = prompts.keys(between)
        weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
        gradients.append(torch.autograd.grad((out * weights).sum(), between)[0])
        keys.append(out.detach())
        lengths.append(4 + prompts.encoders[0].rest.shape[1])
    assert lengths[0] < 40 and lengths[1] == tower.context == 77
    assert (keys[0] - keys[1]).abs().max() < 1e-6
    assert gradients[1].abs().max() > 1e-3
    assert (gradients[0] - gradients[1]).abs().max() < 1e-5 * gradients[1].abs().max()


def test_a_tower_that_reads_both_ways_is_never_cut(bidirectional: Encoder) -> None:
    assembly = PromptAssembly(bidirectional.text, NAMES, 2)
    assert not assembly.truncate
    learner = PromptLearner(setting_of(bidirectional), TokenPrompt(tokens=2))
    assert learner.keys(ALL).shape == (len(NAMES), bidirectional.width)


def test_words_as_a_start_give_the_text_vectors(tiny: Encoder, bidirectional: Encoder) -> None:
    for encoder in (tiny, bidirectional):
        setting = setting_of(encoder)
        for shared in (False, True):
            spec = TokenPrompt(tokens=4, init="a photo of a", shared=shared)
            learner = PromptLearner(setting, spec)
            assert learner.context.shape[0] == (1 if shared else len(NAMES))
            assert torch.allclose(learner.keys(ALL), setting.text, atol=1e-6)
            assert torch.allclose(learner.keys((3, 0)), setting.text[[3, 0]], atol=1e-6)


def test_others_stand_between_the_soft_tokens_and_the_name(tiny: Encoder) -> None:
    setting = setting_of(tiny)
    words = PromptLearner(setting, TokenPrompt(tokens=4, init="a photo of a")).context
    learner = PromptLearner(setting, TokenPrompt(tokens=1, init="a"), others=3)
    assert torch.allclose(learner.keys(ALL, words[:, 1:]), setting.text, atol=1e-6)
    assert not torch.allclose(learner.keys(ALL, words[:, 1:].flip(1)), setting.text, atol=1e-3)


def test_chunks_change_neither_keys_nor_gradients(
    tiny: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> tuple[Tensor, Tensor]:
        learner = PromptLearner(setting_of(tiny), TokenPrompt(tokens=2))
        between = learner.context.clone().requires_grad_()
        keys = learner.assembly.of(torch.tensor(ALL)).keys(between)
        return keys.detach(), torch.autograd.grad((keys**3).sum(), between)[0]

    whole = run()
    monkeypatch.setattr(module, "SHARD", 2)
    monkeypatch.setattr(module, "KEPT", 2)
    for one, other in zip(whole, run(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_the_tower_itself_is_never_trained(tiny: Encoder) -> None:
    before = tiny.encode_texts(list(NAMES))
    learn(build_method(tokens_spec(), setting_of(tiny)), 0, ALL)
    assert torch.equal(tiny.encode_texts(list(NAMES)), before)
    assert all(not p.requires_grad and p.grad is None for p in tiny._model.parameters())


@pytest.mark.parametrize("prompt", [{}, {"tokens": 4}, {"tokens": 4, "shared": True}], ids=str)
def test_soft_tokens_learn(tiny: Encoder, prompt: dict[str, Any]) -> None:
    setting = setting_of(tiny)
    method = build_method(tokens_spec(**prompt), setting)
    method.seen = ALL
    zero_shot = accuracy(method)
    learn(method, 0, ALL)
    assert accuracy(method) > zero_shot + 0.15
    rows = 1 if prompt.get("shared") else len(NAMES)
    assert method.trainable_parameters == rows * prompt.get("tokens", 1) * tiny.text.token_width


def test_untrained_classes_keep_their_text(tiny: Encoder) -> None:
    setting = setting_of(tiny)
    x = samples(setting, ALL).x
    for shared in (False, True):
        method = build_method(tokens_spec(Finetune, shared=shared), setting)
        untouched = method.union_scores(x)
        assert untouched is not None
        assert torch.allclose(untouched, setting.zero_shot(x))
        learn(method, 0, (3, 1))
        union = method.union_scores(x)
        assert union is not None
        assert torch.equal(union[:, [0, 2, 4]], setting.zero_shot(x)[:, [0, 2, 4]])
        assert not torch.allclose(union[:, [3, 1]], setting.zero_shot(x)[:, [3, 1]], atol=0.1)
        assert torch.allclose(union[:, [3, 1]], method.seen_scores(x), atol=1e-4)


def test_local_training_leaves_other_classes_alone(tiny: Encoder) -> None:
    setting = setting_of(tiny)
    spec = Finetune(loss="local", prompt=TokenPrompt(), align=Align(lr=0.05, epochs=3))
    method = learn(build_method(spec, setting), 0, (3, 1))
    before = method.state()["context"]
    learn(method, 1, (0, 4))
    assert torch.equal(method.state()["context"][:2], before)


@pytest.mark.parametrize("kind", [Finetune, Joint])
@pytest.mark.parametrize("prompt", [{}, {"tokens": 2, "shared": True}], ids=str)
def test_tokens_hold_the_contract(
    tmp_path: Path, kind: type[Finetune] | type[Joint], prompt: dict[str, Any]
) -> None:
    encoder = load_encoder(save_backbone(tmp_path, embed_dim=conformance.WIDTH), CPU)
    spec = kind(prompt=TokenPrompt(**prompt), align=Align(lr=0.02, epochs=2, batch=8))
    findings = conformance.check_method(
        lambda setting: build_method(spec, replace(setting, encoder=encoder))
    )
    assert {f.what: f.fault for f in findings if not f.ok} == {}


def test_stopped_at_every_step_it_ends_with_the_same_bits(tiny: Encoder) -> None:
    spec = Finetune(prompt=TokenPrompt(tokens=2), align=Align(lr=0.05, epochs=3, batch=16))
    setting = setting_of(tiny)
    through = learn(learn(build_method(spec, setting), 0, (0, 1)), 1, (4, 2))
    first = learn(build_method(spec, setting), 0, (0, 1))
    saved: dict[str, Mapping[str, Tensor]] = {}
    lent: dict[str, Any] = {"save_partial": saved.__setitem__, "load_partial": saved.get}
    stops = 0
    while True:
        method = build_method(spec, setting)
        method.seen = (0, 1)
        method.restore(first.state())
        try:
            learn(method, 1, (4, 2), stopping=lambda: True, **lent)
        except StoppedError:
            stops += 1
            continue
        break
    assert stops >= 5
    for name, tensor in through.state().items():
        assert torch.equal(method.state()[name], tensor)


def test_keys_are_encoded_once_between_trainings(
    tiny: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = learn(build_method(tokens_spec(Finetune), setting_of(tiny)), 0, (0, 1))
    x = samples(method.setting, ALL).x
    before = method.seen_scores(x)
    with monkeypatch.context() as patch:
        for way in ("encode", "encode_after_start"):
            patch.setattr(tiny.text, way, lambda *_: pytest.fail("encoded again"))
        assert torch.equal(method.seen_scores(x), before)
        method.union_scores(x)
    learn(method, 1, (2, 3))
    assert not torch.equal(method.seen_scores(x)[:, :2], before)
    kept = method.state()
    fresh = build_method(tokens_spec(Finetune), method.setting)
    fresh.seen_scores(x)
    fresh.seen = method.seen
    fresh.restore(kept)
    assert torch.equal(fresh.seen_scores(x), method.seen_scores(x))


def test_low_precision_towers_train_float32_tokens(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path).model_copy(update={"precision": "bf16"})
    method = learn(build_method(tokens_spec(), setting_of(load_encoder(backbone, CPU))), 0, ALL)
    assert method.state()["context"].dtype == torch.float32
    assert torch.isfinite(method.seen_scores(samples(method.setting, ALL).x)).all()


def test_a_residual_is_the_default_and_moves_no_key() -> None:
    for kind in (Finetune, Joint):
        plain = identity(kind())
        assert identity(kind(prompt=ResidualPrompt())) == plain == {
            "kind": plain["kind"], "revision": 1
        }  # fmt: skip
        specs = (TokenPrompt(), TokenPrompt(tokens=2), TokenPrompt(shared=True), None)
        keys = [canonical(identity(kind(prompt=s) if s else kind())) for s in specs]
        assert len(set(keys)) == len(keys)


def test_vectors_without_a_tower_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"vectors only(.|\n)*prompt.kind=residual"):
        build_method(tokens_spec(), setting_of(None))


def test_bad_prompts_are_refused_in_words(tiny: Encoder) -> None:
    setting = setting_of(tiny)
    with pytest.raises(ConfigError, match=r"set method.prompt.tokens=4"):
        build_method(tokens_spec(tokens=3, init="a photo of a"), setting)
    with pytest.raises(ConfigError, match="name some words"):
        build_method(tokens_spec(init=" "), setting)
    with pytest.raises(DataError, match=r"of class 'a hat, of .*(.|\n)*fewer soft tokens"):
        build_method(tokens_spec(tokens=70), setting)
    narrow = replace(setting, text=setting.text[:, :8])
    with pytest.raises(ConfigError, match="of different width"):
        build_method(tokens_spec(), narrow)
    with pytest.raises(DataError, match="a prompt does not fit"):
        tiny.text.encode(torch.zeros(1, 78, tiny.text.token_width), torch.tensor([3]))
    with pytest.raises(MethodError, match=r"training diverged(.|\n)*lower method.align.lr"):
        spec = Joint(prompt=TokenPrompt(), align=Align(lr=1e38, epochs=2))
        learn(build_method(spec, setting), 0, ALL)
