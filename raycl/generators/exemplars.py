"""Real vectors in a generator's place: k of each class, drawn by the class's own stream.

A draw goes through all k in a random order, then through all k in another, so that every
vector comes up equally often.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raycl.config.generators import RealVectors
from raycl.generators.bank import Bank, kept
from raycl.generators.noise import BLOCK, generator
from raycl.generators.vectors import ClassVectors


class RealBank(Bank[RealVectors]):
    """Tensors `vector` (classes, most, d), padded with zeros, and `count` (classes)."""

    @property
    def width(self) -> int:
        return int(self.tensors["vector"].shape[-1])

    @property
    def bytes_per_class(self) -> float:
        """Padding does not count."""
        rows = int(self.tensors["count"].sum())
        return rows * self.width * self.tensors["vector"].element_size() / max(len(self), 1)

    def draw(self, streams: Sequence[int], block: int) -> Tensor:
        counts = self.tensors["count"].tolist()
        rows = torch.stack([_rows(s, block, n) for s, n in zip(streams, counts, strict=True)])
        vectors = self.tensors["vector"]
        index = rows.to(self.device)[..., None].expand(-1, -1, self.width)
        return vectors.gather(1, index).float()

    def split(self, sizes: Sequence[int]) -> list[RealBank]:
        """Without the padding that only the others needed."""
        return [_trimmed(bank) for bank in super().split(sizes)]

    def pick(self, rows: Sequence[int]) -> RealBank:
        return _trimmed(super().pick(rows))


def _trimmed(bank: RealBank) -> RealBank:
    most = int(bank.tensors["count"].max())
    vectors = bank.tensors["vector"][:, :most].contiguous()
    return RealBank(bank.spec, {**bank.tensors, "vector": vectors})


def _rows(stream: int, block: int, count: int) -> Tensor:
    """Which of `count` vectors a block takes: pass after pass, each in an order of its own."""
    first = block * BLOCK
    passes = range(first // count, (first + BLOCK - 1) // count + 1)
    orders = [torch.randperm(count, generator=generator(stream, "pass", p)) for p in passes]
    begin = first - passes[0] * count
    return torch.cat(orders)[begin : begin + BLOCK]


def keep_real(spec: RealVectors, data: ClassVectors) -> RealBank:
    """A bank of one class."""
    keep = len(data) if spec.per_class is None else min(spec.per_class, len(data))
    chosen = torch.randperm(len(data), generator=generator(data.stream, "exemplars"))[:keep]
    vectors = data.vectors.detach().cpu()[chosen.sort().values]
    tensors = kept({"vector": vectors[None]}, spec.weights)
    return RealBank(spec, {**tensors, "count": torch.tensor([keep])})
