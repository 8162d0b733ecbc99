"""The blocks of a causal text tower over rows: only what the vectors at the ends depend on.

    (rows, width) of many prompts, one below the other ─► blocks ─► (prompts, width) at the ends

The vectors are those of the tower's own blocks, for less work:

- a prompt has as many rows as tokens, however long its neighbours are;
- the start token sees itself alone: what others see of it is computed once per tower;
- the last block makes only the rows that are read;
- products run over one matrix of all rows. In bf16 the weights are converted once and kept.

Sums, norms and the attention between a few tokens stay in float32: its kernels take longer
in bf16 on a CPU, and are a small part everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention

_Norm = tuple[tuple[int, ...], Tensor, Tensor, float]
"""Shape, weight, bias and epsilon."""


class Packing:
    """Which row holds which token of prompts that end at `ends`.

    Rows stand for the tokens after the start token, up to the end. A table (prompts, longest)
    holds all of them as attention wants them, and the start token in its first column.
    """

    def __init__(self, ends: Tensor, device: torch.device) -> None:
        ends = ends.cpu()[:, None]
        self.longest = int(ends.max()) + 1
        """Tokens, the start token among them."""
        column = torch.arange(self.longest).expand(len(ends), -1)
        taken = (column > 0) & (column <= ends)
        rows = int(taken.sum())
        # The start token's follows the others. It also fills the places after an end, which
        # nothing sees.
        row = torch.full_like(column, rows)
        row[taken] = torch.arange(rows)
        self.row = row.flatten().to(device)
        """Of each place of the table."""
        self.place = taken.flatten().nonzero().flatten().to(device)
        """In the table, of each row."""
        self.token = taken[:, 1:].flatten().nonzero().flatten().to(device)
        """Where each row stands in a table without the start token."""
        self.position = column[taken].to(device)
        """Of each row in its prompt."""
        self.last = row.gather(1, ends).flatten().to(device)
        """The row of each prompt's end."""
        self.seen_from_end = (column <= ends)[:, None, None].to(device)
        """(prompts, 1, 1, longest)"""

    def rows(self, embedded: Tensor) -> Tensor:
        """(rows, width) of (prompts, tokens after the start, width)."""
        return embedded[:, : self.longest - 1].flatten(0, 1).index_select(0, self.token)

    def table(self, rows: Tensor, start: Tensor) -> Tensor:
        """(prompts, longest, width) of rows and the (1, width) of the start token."""
        table = torch.cat([rows, start]).index_select(0, self.row)
        return table.view(-1, self.longest, rows.shape[1])


class PackedBlocks:
    """The blocks of a transformer of open_clip, whose weights it shares."""

    def __init__(self, transformer: Any, start: Tensor) -> None:
        """`start`: (width) of the start token, embedded, with its position added."""
        self._modules = list(transformer.resblocks)
        self._start = start.detach().float()[None]
        self._prepared: dict[torch.dtype, list[_Block]] = {}

    def __call__(self, x: Tensor, packing: Packing, dtype: torch.dtype) -> Tensor:
        """(prompts, width) of rows, with products in `dtype`."""
        *blocks, last = self._blocks(dtype)
        for block in blocks:
            x = block.finish(x, block.attend(x, packing))
        return last.finish(x.index_select(0, packing.last), last.attend_from_ends(x, packing))

    def _blocks(self, dtype: torch.dtype) -> list[_Block]:
        """With weights in `dtype`, each knowing the start token."""
        if dtype not in self._prepared:
            blocks, x = [], self._start
            with torch.no_grad():
                for module in self._modules:
                    block = _Block(module, dtype)
                    x = block.begin(x)
                    blocks.append(block)
            self._prepared[dtype] = blocks
        return self._prepared[dtype]


class _Block:
    """One residual block, for rows of any number."""

    start: Tensor
    """(1, 3 · width) query, key and value of the start token."""

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        attention, mlp = module.attn, module.mlp
        self.dtype, self.heads = dtype, attention.num_heads
        self.norm_1, self.norm_2 = _norm(module.ln_1), _norm(module.ln_2)
        self.scale_1, self.scale_2 = module.ls_1, module.ls_2
        self.activation = mlp.gelu
        self.qkv = _in(dtype, attention.in_proj_weight, attention.in_proj_bias)
        self.out = _in(dtype, attention.out_proj.weight, attention.out_proj.bias)
        self.widen = _in(dtype, mlp.c_fc.weight, mlp.c_fc.bias)
        self.narrow = _in(dtype, mlp.c_proj.weight, mlp.c_proj.bias)

    def begin(self, start: Tensor) -> Tensor:
        """What the block makes of the start token, which sees nothing but its own value."""
        self.start = linear(self._normed(self.norm_1, start), *self.qkv).float()
        return self.finish(start, self.start[:, 2 * start.shape[1] :])

    def attend(self, x: Tensor, packing: Packing) -> Tensor:
        """What each row sees of its prompt up to itself."""
        rows = linear(self._normed(self.norm_1, x), *self.qkv)
        q, k, v = self._by_head(rows, packing)
        seen = scaled_dot_product_attention(q, k, v, is_causal=True)
        return seen.transpose(1, 2).reshape(-1, x.shape[1]).index_select(0, packing.place)

    def attend_from_ends(self, x: Tensor, packing: Packing) -> Tensor:
        """What the row of each end sees."""
        x, width = self._normed(self.norm_1, x), x.shape[1]
        weight, bias = self.qkv
        k, v = self._by_head(linear(x, weight[width:], bias[width:]), packing)
        ends = linear(x.index_select(0, packing.last), weight[:width], bias[:width])
        q = ends.float().view(len(ends), self.heads, 1, -1)
        return scaled_dot_product_attention(q, k, v, attn_mask=packing.seen_from_end).flatten(1)

    def finish(self, x: Tensor, seen: Tensor) -> Tensor:
        """The rows x after the block, of what attention saw."""
        x = x + self.scale_1(linear(seen.to(self.dtype), *self.out))
        hidden = self.activation(linear(self._normed(self.norm_2, x), *self.widen))
        out: Tensor = x + self.scale_2(linear(hidden, *self.narrow))
        return out

    def _by_head(self, rows: Tensor, packing: Packing) -> tuple[Tensor, ...]:
        """Each (prompts, heads, longest, width of a head); queries, keys and values, or the
        last two."""
        table = packing.table(rows.float(), self.start[:, -rows.shape[1] :])
        head_width = self.start.shape[1] // (3 * self.heads)
        by_head = table.view(*table.shape[:2], -1, self.heads, head_width)
        return tuple(by_head.permute(2, 0, 3, 1, 4))

    def _normed(self, norm: _Norm, x: Tensor) -> Tensor:
        return layer_norm(x, *norm).to(self.dtype)


def _norm(module: nn.LayerNorm) -> _Norm:
    weight, bias = (t.detach().float() for t in (module.weight, module.bias))
    return module.normalized_shape, weight, bias, module.eps


def _in(dtype: torch.dtype, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return weight.detach().to(dtype), bias.detach().to(dtype)


def can_pack(transformer: Any) -> bool:
    """Whether every block is of the kind whose arithmetic is written here."""
    from open_clip.transformer import Transformer

    return type(transformer) is Transformer and all(map(_is_known, transformer.resblocks))


def _is_known(block: Any) -> bool:
    from open_clip.transformer import LayerNorm, LayerNormFp32, LayerScale, ResidualAttentionBlock

    def of(kinds: tuple[type, ...], *modules: Any) -> bool:
        return all(type(module) in kinds for module in modules)

    return (
        type(block) is ResidualAttentionBlock
        and not hasattr(block, "ln_1_kv")
        and of((nn.LayerNorm, LayerNorm, LayerNormFp32), block.ln_1, block.ln_2)
        and all(norm.bias is not None for norm in (block.ln_1, block.ln_2))
        and of((nn.Identity, LayerScale), block.ls_1, block.ls_2)
        and of((nn.MultiheadAttention,), block.attn)
        and block.attn.in_proj_weight is not None
        and block.attn.in_proj_bias is not None
        and block.attn.bias_k is None
        and not block.attn.add_zero_attn
        and list(block.mlp._modules) == ["c_fc", "gelu", "c_proj"]
        and of((nn.Linear,), block.mlp.c_fc, block.mlp.c_proj)
    )
