"""Alignment that is fast: cut prompts, bf16, and prompts encoded by workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raycl.backbones.encoder import load_encoder
from raycl.compute.local_pool import LocalPool
from raycl.compute.pool import WorkerSpec
from raycl.config.backbones import Backbone
from raycl.config.execution import Execution
from raycl.config.methods import Align, MappedPrompt, MappedTokens
from raycl.config.seeds import rng
from raycl.errors import DataError
from raycl.generators.adamw import AdamW
from raycl.methods import conformance
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts import prompts
from raycl.methods.parts.key_head import Kept
from raycl.methods.parts.mapped_heads import MappedHead, build_mapped_head
from raycl.methods.parts.prompt_shards import Crew
from raycl.methods.parts.prompts import PromptAssembly
from raycl.methods.parts.text_map import TextMap
from raycl.observe.events import nobody
from tests.backbones.made_backbones import save_backbone

ALIGN = Align(lr=0.01, epochs=4, batch=16)
SPACE = (6, 4, 1, 0, 5)
"""Out of order, and not to be halved."""
PROMPTS: tuple[MappedPrompt, ...] = (
    MappedTokens(orthogonality=0.5),
    MappedTokens(tokens=2, shared=True),
)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return save_backbone(tmp_path_factory.mktemp("tower"), embed_dim=conformance.WIDTH)


def setting_of(backbone: Backbone) -> Setting:
    encoder = load_encoder(backbone, torch.device("cpu"))
    return replace(conformance.synthetic_setting(), logit_scale=20.0, encoder=encoder)


def data(setting: Setting) -> Kept:
    y = np.repeat(SPACE, 12)
    draw = rng(0, "test alignment")
    centre = draw.normal(size=(setting.classes, setting.width))  # not where the text is
    x = centre[y] + draw.normal(size=(len(y), setting.width))
    return Kept(torch.from_numpy(x).float(), torch.from_numpy(y))


def context() -> Context:
    return Context(0, LocalPool(), nobody)


def alone(
    setting: Setting, prompt: MappedPrompt, align: Align = ALIGN
) -> tuple[MappedHead, Tensor]:
    head = build_mapped_head(prompt, setting)
    losses = head.train_on(data(setting), head.prepare(SPACE), SPACE, align, context())
    return head, torch.stack(losses)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=repr)
def test_a_crew_has_the_bits_of_the_trainer_alone(
    backbone: Backbone, prompt: MappedPrompt, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "SHARD", 2)
    setting = setting_of(backbone)
    align = ALIGN.model_copy(update={"precision": precision})
    head, losses = alone(setting, prompt, align)
    assert losses[:4].mean() > losses[-4:].mean() + 0.1
    asked: list[int] = []

    class Counted(LocalPool):
        def map_unordered(self, worker: WorkerSpec, items: Any, **options: Any) -> Any:
            done = list(super().map_unordered(worker, items, **options))
            asked.append(len(done))
            return reversed(done)  # in whatever order they come

    crew = Crew.of(Execution(encodes="workers"), backbone, Counted())
    other, found = alone(replace(setting, crew=crew), prompt, align)
    assert torch.equal(found, losses)
    for name, tensor in head.state(SPACE).items():
        assert torch.equal(tensor, other.state(SPACE)[name]), name
    assert asked == [3] * 2 * len(losses)  # three shards, forth and back


def test_a_worker_refuses_other_weights(backbone: Backbone) -> None:
    crew = Crew.of(Execution(encodes="workers"), backbone, LocalPool())
    assert crew is not None
    other = replace(setting_of(backbone), crew=replace(crew, weights=("of another node",)))
    with pytest.raises(DataError, match="not those of the process that trains"):
        alone(other, PROMPTS[0])


def test_workers_are_given_one_thing_to_do() -> None:
    with pytest.raises(ValueError, match="leave one of them to the trainer"):
        Execution(draws="workers", encodes="workers")


def test_cut_prompts_have_the_losses_of_whole_ones(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = setting_of(backbone)
    cut = alone(setting, MappedTokens())[1]
    whole = PromptAssembly.__init__

    def uncut(self: PromptAssembly, *args: Any, **options: Any) -> None:
        whole(self, *args, **{**options, "truncate": False})

    monkeypatch.setattr(PromptAssembly, "__init__", uncut)
    assert build_mapped_head(MappedTokens(), setting).learner.assembly.truncate is False  # type: ignore[attr-defined]
    assert (cut - alone(setting, MappedTokens())[1]).abs().max() < 1e-4


def test_half_precision_is_near_and_keeps_its_parameters_whole(backbone: Backbone) -> None:
    setting = setting_of(backbone)
    exact = alone(setting, MappedTokens())[1]
    head, fast = alone(setting, MappedTokens(), ALIGN.model_copy(update={"precision": "bf16"}))
    assert not torch.equal(exact, fast)
    assert (exact - fast).abs().max() < 0.1 * exact.max()
    assert all(
        t.dtype == torch.float32 for t in head.state(SPACE).values() if t.dtype.is_floating_point
    )


@pytest.mark.parametrize("text", [{}, {"no_causal_mask": True}], ids=["causal", "both ways"])
def test_half_precision_in_chunks_is_that_of_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: dict[str, Any]
) -> None:
    setting = setting_of(save_backbone(tmp_path, embed_dim=conformance.WIDTH, **text))
    align = ALIGN.model_copy(update={"precision": "bf16"})
    whole = alone(setting, MappedTokens(), align)[1]
    monkeypatch.setattr(prompts, "SHARD", 2)
    monkeypatch.setattr(prompts, "KEPT", 2)
    assert (alone(setting, MappedTokens(), align)[1] - whole).abs().max() < 0.02 * whole.max()


def test_gradients_of_any_layout_move_the_right_elements() -> None:
    start = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    optimiser = AdamW([ours], 0.05, 0.0)
    reference = torch.optim.AdamW([theirs], lr=0.05, weight_decay=0.0)
    weights = torch.arange(30.0).reshape(5, 6)
    for _ in range(5):
        loss = (ours.T.sin() * weights).sum()
        assert not torch.autograd.grad(loss, ours, retain_graph=True)[0].is_contiguous()
        optimiser.step(loss)
        reference.zero_grad()
        (theirs.T.sin() * weights).sum().backward()  # type: ignore[no-untyped-call]
        reference.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_map_of_a_class_is_its_own_affair() -> None:
    setting = conformance.synthetic_setting()
    g = TextMap(setting, 20)
    together = g(setting.text)
    assert together.shape == (setting.classes, 20)
    apart = torch.cat([g(row) for row in setting.text.split(1)])
    assert torch.allclose(together, apart, atol=1e-6)
    # By hand, from the formula.
    x = setting.text.double() * setting.width**0.5
    for layer in range(4):
        part = {name: g.tensors[f"{name}.{layer}"].double() for name in ("weight", "bias")}
        x = x @ part["weight"].T + part["bias"]
        if layer < 3:
            x = torch.nn.functional.selu(x / (1 + 1e-5) ** 0.5)
    assert torch.allclose(together.double(), x, atol=1e-5)
    assert not TextMap(setting, 20, ends_in_zero=True)(setting.text).any()
    assert sum(t.numel() for t in g.tensors.values()) == 2 * (144 + 12) + 260 + 420 + 2 * 44
