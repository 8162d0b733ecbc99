"""A text tower with an adapter beside the MLP of every block (AdaptFormer, Chen et al. 2022).

    x ◄ x + attention(norm₁ x)
    x ◄ x + MLP(norm₂ x) + 0.1 s · U relu(D norm(x) + b) + c      D: d → width, U: width → d

The tower's own modules are called one by one and stay as they are: nothing is hooked into them,
so whoever else uses the tower meanwhile sees no adapter. U and c start at zero, and with them the
adapter: its first vectors are the tower's own. Gradients reach the adapter's parameters alone.
More texts than `CHUNK` are encoded in chunks whose activations are computed again for the
gradient, so memory does not grow with the number of texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, relu
from torch.utils.checkpoint import checkpoint

from raycl.backbones.text_tower import TextTower
from raycl.errors import ConfigError

CHUNK = 256
SCALE = 0.1
"""Times the learned scalar of each block, which starts at one."""


class AdaptedText:
    """Texts that are encoded again and again while the adapter is trained."""

    def __init__(self, tower: TextTower, texts: Sequence[str]) -> None:
        _check(tower)
        self.tower = tower
        self.transformer: Any = tower._transformer
        tokens = tower.tokenise(texts)
        self.ends = tower.ends(tokens)
        last = int(self.ends.max()) + 1 if tower.can_truncate else tower.context
        self.tokens = tokens[:, :last]

    def begin(self, bottleneck: int, generator: torch.Generator) -> list[Tensor]:
        """Parameters of a fresh adapter; the first axis is the block."""
        width, blocks = self.tower.token_width, len(self.transformer.resblocks)
        # The bounds that torch gives its linear layers.
        down = torch.empty(blocks, bottleneck, width)
        down.uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width), generator=generator)
        made = [
            torch.ones(blocks, width),
            torch.zeros(blocks, width),
            down,
            torch.zeros(blocks, bottleneck),
            torch.zeros(blocks, width, bottleneck),
            torch.zeros(blocks, width),
            torch.ones(blocks, 1),
        ]
        device = self.tower.embed(self.tokens[:1, :1]).device
        return [tensor.to(device).requires_grad_() for tensor in made]

    def __call__(self, parameters: Sequence[Tensor]) -> Tensor:
        """(texts, width) vectors, not normalised."""
        chunks = range(0, len(self.ends), CHUNK)
        again = len(chunks) > 1 and torch.is_grad_enabled()
        out = []
        for start in chunks:
            if again:
                encoded = checkpoint(
                    self._encode, start, *parameters, use_reentrant=False, preserve_rng_state=False
                )
            else:
                encoded = self._encode(start, *parameters)
            out.append(encoded)
        return torch.cat(out)

    def _encode(self, start: int, *parameters: Tensor) -> Tensor:
        tower, length = self.tower, self.tokens.shape[1]
        with torch.no_grad():
            x = tower.embed(self.tokens[start : start + CHUNK])
        dtype = self.transformer.get_cast_dtype()
        x = x.to(dtype) + tower._positions[:length].to(dtype)
        mask = None if tower._mask is None else tower._mask[:length, :length]
        blocks = zip(self.transformer.resblocks, zip(*parameters, strict=True), strict=True)
        for block, own in blocks:
            x = _run(block, x, mask, own, batch_first=self.transformer.batch_first)
        return tower._project(tower._read(x, self.ends[start : start + CHUNK].to(x.device)))


def _run(
    block: Any, x: Tensor, mask: Tensor | None, own: Sequence[Tensor], *, batch_first: bool
) -> Tensor:
    """One block with its adapter."""
    normed = block.ln_1(x)
    if batch_first:
        seen = block.attention(normed, attn_mask=mask)
    else:
        seen = block.attention(normed.transpose(0, 1), attn_mask=mask).transpose(0, 1)
    x = x + block.ls_1(seen)
    out: Tensor = x + block.ls_2(block.mlp(block.ln_2(x))) + _adapted(x, own)
    return out


def _adapted(x: Tensor, own: Sequence[Tensor]) -> Tensor:
    weight, bias, down, down_bias, up, up_bias, scale = own
    hidden = layer_norm(x.float(), weight.shape, weight, bias)
    hidden = linear(relu(linear(hidden, down, down_bias)), up, up_bias)
    return (SCALE * scale * hidden).to(x.dtype)


def _check(tower: TextTower) -> None:
    from open_clip.transformer import ResidualAttentionBlock

    for block in tower._transformer.resblocks:
        if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
            raise ConfigError(
                "no adapter is known for the blocks of this text tower",
                got=type(block).__name__,
                do="set method.text=residual",
            )
