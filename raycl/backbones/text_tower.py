"""A text tower as differentiable pieces: tokenise, embed, encode.

    texts ─► tokenise ─► ids ─► embed ─► vectors, into which a method may put its own
                                    └─► encode, up to the end-of-text token ─► (n, width)

It shares the modules of the model that it opens up. Where attention is causal and the
vector is read at the end-of-text token, nothing after that token can matter: such a tower
`can_truncate`, and encodes as many positions as it is given. Nothing is cut silently.

`encode` runs the model's own modules, so a vector does not depend on what is encoded beside
it. `encode_after_start` is for training prompts: the same vectors but for rounding, and much
less work, where the tower's blocks are of the kind that `pack` knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from raycl.backbones.packed_blocks import PackedBlocks, Packing, can_pack
from raycl.errors import DataError

POOLED_AT_EOT = ("argmax", "eos")


class TextTower:
    """The text tower of a CLIP (`model.*`) or CustomTextCLIP (`model.text.*`) of open_clip."""

    def __init__(self, model: Any, tokeniser: Any) -> None:
        tower = getattr(model, "text", model)
        self._tokeniser = tokeniser
        self._tokens: nn.Embedding = tower.token_embedding
        self._positions: Tensor = tower.positional_embedding
        self._transformer: Any = tower.transformer
        self._mask: Tensor | None = tower.attn_mask
        self._norm: nn.Module = tower.ln_final
        self._projection: Any = tower.text_projection
        self._pool: str = tower.pool_type if hasattr(tower, "pool_type") else tower.text_pool_type
        self.context: int = tower.context_length
        self.token_width: int = self._tokens.embedding_dim
        self.can_truncate: bool = self._mask is not None and self._pool in POOLED_AT_EOT
        """Causal and read at the end-of-text token, so that what follows cannot matter."""
        self.has_start: bool = tokeniser.sot_token_id is not None
        """Whether texts begin with a token of their own, after which soft tokens may stand."""
        eos = tower.eos_id if hasattr(tower, "eos_id") else tower.text_eos_id
        self._check_vocabulary(eos)
        self._blocks = self._packed_blocks()

    def _packed_blocks(self) -> PackedBlocks | None:
        if not self.can_truncate or not can_pack(self._transformer):
            return None
        start = self.embed(torch.tensor(self._tokeniser.sot_token_id))
        return PackedBlocks(self._transformer, start.float() + self._positions[0].float())

    def _check_vocabulary(self, eos: int) -> None:
        known, eot = self._tokens.num_embeddings, self._tokeniser.eot_token_id
        if self._tokeniser.vocab_size > known:
            raise DataError(
                "the backbone's tokeniser has tokens that its text tower does not know",
                got=f"{self._tokeniser.vocab_size} tokens, {known} embeddings",
                do="put the bpe.txt.gz of these weights beside them",
            )
        if self._pool == "eos" and eos != eot:
            raise DataError(
                "the text tower reads at another token than its tokeniser ends with",
                got=f"eos_id {eos}, the tokeniser's {eot}",
                do="correct text_cfg.eos_id",
            )
        if self._pool not in (*POOLED_AT_EOT, "first", "last"):
            raise DataError("a text tower without pooling gives no vector", got=self._pool)

    @property
    def width(self) -> int:
        """Of the vectors that `encode` gives."""
        if self._projection is None:
            return self.token_width
        if isinstance(self._projection, nn.Linear):
            return int(self._projection.out_features)
        return int(self._projection.shape[-1])

    def tokenise(self, texts: Sequence[str]) -> Tensor:
        """(n, context) token ids: start, text, end, then zeros; or as its tokeniser frames them."""
        if not self.has_start:
            return self._framed(texts)
        start, end = self._tokeniser.sot_token_id, self._tokeniser.eot_token_id
        out = torch.zeros(len(texts), self.context, dtype=torch.long)
        for row, text in zip(out, texts, strict=True):
            inner = self._tokeniser.encode(text)
            self._check_fits(text, len(inner) + 2)
            if start in inner or end in inner:
                raise DataError(
                    "a text holds a token that only marks its start or end",
                    got=_shortened(text),
                    do="rename the class",
                )
            row[: len(inner) + 2] = torch.tensor([start, *inner, end])
        return out

    def _framed(self, texts: Sequence[str]) -> Tensor:
        out = torch.full((len(texts), self.context), self._tokeniser.pad_token_id)
        for row, text in zip(out, texts, strict=True):
            ids = self._tokeniser.framed(text)
            self._check_fits(text, len(ids))
            row[: len(ids)] = torch.tensor(ids)
        return out

    def _check_fits(self, text: str, length: int) -> None:
        if length > self.context:
            raise DataError(
                "a text is longer than the text tower's context",
                got=f"{length} tokens of at most {self.context}: {_shortened(text)}",
                do="shorten the class name or backbone.template",
            )

    def ends(self, tokens: Tensor) -> Tensor:
        """(n,) the position of the end-of-text token of each row."""
        ends: Tensor = (tokens == self._tokeniser.eot_token_id).int().argmax(dim=1)
        return ends

    def embed(self, tokens: Tensor) -> Tensor:
        """(n, L, token_width) of ids; positions are added by `encode`."""
        embedded: Tensor = self._tokens(tokens.to(self._tokens.weight.device))
        return embedded

    def encode(self, embedded: Tensor, eot: Tensor) -> Tensor:
        """(n, width) vectors, not normalised, of embedded tokens that end at `eot`.

        As many positions as the longest row needs are enough where the tower can truncate.
        """
        length = embedded.shape[1]
        self._check_length(length)
        dtype = self._transformer.get_cast_dtype()
        x: Tensor = embedded.to(dtype) + self._positions[:length].to(dtype)
        mask = None if self._mask is None else self._mask[:length, :length]
        with _kernels(x.device):
            x = self._transformer(x, attn_mask=mask)
        # The norm works by position, so only the one that is read needs it.
        return self._project(self._read(x, eot.to(x.device)))

    def pack(self, ends: Tensor) -> Packing | None:
        """For `encode_after_start`, of prompts that end at `ends`; None where it cannot be."""
        if self._blocks is None:
            return None
        packing = Packing(ends, self._positions.device)
        self._check_length(packing.longest)
        return packing

    def encode_after_start(self, embedded: Tensor, packing: Packing) -> Tensor:
        """(n, width) as `encode` gives for the start token and `embedded` after it.

        Under autocast the products of the blocks are in its type, and nothing else is.
        """
        assert self._blocks is not None
        device, weights = embedded.device.type, self._transformer.get_cast_dtype()
        casts = torch.is_autocast_enabled(device)
        products = torch.get_autocast_dtype(device) if casts else weights
        with torch.autocast(device, enabled=False):
            rows = packing.rows(embedded.float()) + self._positions[packing.position].float()
            return self._project(self._blocks(rows, packing, products).to(weights))

    def _check_length(self, length: int) -> None:
        if length > self.context or (length < self.context and not self.can_truncate):
            raise DataError(
                "a prompt does not fit the text tower",
                got=f"{length} tokens, the context is {self.context}",
                do="use fewer soft tokens or shorter class names",
            )

    def _project(self, x: Tensor) -> Tensor:
        x = self._norm(x)
        if isinstance(self._projection, nn.Linear):
            x = self._projection(x)
        elif self._projection is not None:
            x = x @ self._projection
        return x.float()

    def _read(self, x: Tensor, eot: Tensor) -> Tensor:
        match self._pool:
            case "first":
                return x[:, 0]
            case "last":
                return x[:, -1]
            case _:
                return x[torch.arange(len(x), device=x.device), eot]


def _kernels(device: torch.device) -> AbstractContextManager[object]:
    """The attention kernels to take: all that torch has, but for one case."""
    if device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # The flash kernel's gradient in bf16 takes longer there than all products.
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
