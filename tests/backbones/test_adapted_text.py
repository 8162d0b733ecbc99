"""An adapter in a text tower: exact, differentiable, and gone without a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from raycl.backbones import adapted_text as module
from raycl.backbones.adapted_text import AdaptedText
from raycl.backbones.encoder import Encoder, load_encoder
from raycl.config.backbones import TINY_CLIP, Backbone
from raycl.errors import ConfigError
from tests.backbones.made_backbones import save_backbone

CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return load_encoder(Backbone(name=TINY_CLIP), CPU)


TEXTS = ("a photo of a cat.", "a photo of a very old dog that sleeps.", "a tree")


@pytest.mark.parametrize("name", [TINY_CLIP, "ViT-S-32-alt:random"])
def test_a_fresh_adapter_is_the_tower_itself(name: str) -> None:
    encoder = load_encoder(Backbone(name=name), CPU)
    adapted = AdaptedText(encoder.text, TEXTS)
    found = adapted(adapted.begin(16, torch.Generator().manual_seed(0)))
    expected = encoder.encode_texts(list(TEXTS))
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_a_tower_that_reads_both_ways_is_never_cut(tmp_path: Path) -> None:
    encoder = load_encoder(save_backbone(tmp_path, no_causal_mask=True), CPU)
    adapted = AdaptedText(encoder.text, TEXTS)
    found = adapted(adapted.begin(4, torch.Generator().manual_seed(0)))
    assert torch.allclose(found, encoder.encode_texts(list(TEXTS)), atol=1e-4)


def test_the_adapter_stands_beside_the_mlp(tiny: Encoder) -> None:
    """The same sums by hooks on the tower's own modules."""
    adapted = AdaptedText(tiny.text, TEXTS)
    parameters = adapted.begin(8, torch.Generator().manual_seed(0))
    for place, p in enumerate(parameters):
        p.data += 0.3 * noise(*p.shape, seed=place)
    blocks = adapted.transformer.resblocks
    before: dict[int, Tensor] = {}
    handles = []
    for i, block in enumerate(blocks):
        weight, bias, down, down_bias, up, up_bias, scale = (p[i] for p in parameters)

        def keep(module: Any, args: Any, out: Tensor, i: int = i) -> None:
            before[i] = args[0]

        def add(
            module: Any, args: Any, out: Tensor, i: int = i,
            own: tuple[Tensor, ...] = (weight, bias, down, down_bias, up, up_bias, scale),
        ) -> Tensor:  # fmt: skip
            weight, bias, down, down_bias, up, up_bias, scale = own
            normed = torch.nn.functional.layer_norm(before[i], weight.shape, weight, bias)
            hidden = torch.relu(normed @ down.T + down_bias)
            return out + 0.1 * scale * (hidden @ up.T + up_bias)

        handles += [block.ln_2.register_forward_hook(keep), block.register_forward_hook(add)]
    try:
        expected = tiny.encode_texts(list(TEXTS))
    finally:
        for handle in handles:
            handle.remove()
    assert torch.allclose(adapted(parameters), expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(tiny.encode_texts(list(TEXTS)), expected, atol=1e-2)


def test_chunks_of_texts_have_the_same_gradients(
    tiny: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for chunk in (256, 2):
        monkeypatch.setattr(module, "CHUNK", chunk)
        adapted = AdaptedText(tiny.text, TEXTS)
        parameters = adapted.begin(4, torch.Generator().manual_seed(0))
        parameters[4].data.normal_(generator=torch.Generator().manual_seed(1))
        out = adapted(parameters)
        found.append((out, torch.autograd.grad((out * noise(*out.shape)).sum(), parameters)))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_tower_gets_no_gradient_and_no_hook(tiny: Encoder) -> None:
    adapted = AdaptedText(tiny.text, TEXTS)
    adapted(adapted.begin(4, torch.Generator().manual_seed(0))).sum().backward()
    for part in adapted.transformer.modules():
        assert not part._forward_hooks and not part._forward_pre_hooks
        assert all(p.grad is None for p in part.parameters())


def test_a_tower_of_a_custom_model_is_one_too(tmp_path: Path) -> None:
    encoder = load_encoder(save_backbone(tmp_path, custom=True), CPU)
    adapted = AdaptedText(encoder.text, TEXTS)
    found = adapted(adapted.begin(4, torch.Generator().manual_seed(0)))
    assert torch.allclose(found, encoder.encode_texts(list(TEXTS)), atol=1e-4)


def test_blocks_of_another_kind_are_refused(tmp_path: Path) -> None:
    tower = load_encoder(save_backbone(tmp_path, seed=41), CPU).text  # nobody else's
    block = tower._transformer.resblocks[1]
    tower._transformer.resblocks[1] = torch.nn.Sequential(block)
    with pytest.raises(ConfigError, match="Sequential"):
        AdaptedText(tower, TEXTS)
