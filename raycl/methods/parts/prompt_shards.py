"""Prompts encoded a shard at a time, here or by the workers of a pool, with their gradients.

    soft tokens ─► shards of at most SHARD prompts ─► text tower ─► vectors
    pull on the vectors ─► the same shards, encoded again ─► pull on the soft tokens

A shard is what is encoded at once, wherever that is: so workers, however many, give the bits
that the trainer alone would have given. A worker holds the frozen tower and nothing else; a
shard names all it needs, and one that was lost is encoded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from raycl.backbones.content import backbone_digests
from raycl.backbones.encoder import load_encoder
from raycl.backbones.text_tower import TextTower
from raycl.compute.pool import Pool, WorkerSpec
from raycl.config.backbones import Backbone
from raycl.config.execution import Execution
from raycl.errors import DataError

SHARD = 32
"""Prompts encoded at once."""


@dataclass(frozen=True, eq=False)
class Shard:
    """Some prompts of a label space, next to each other."""

    rows: slice
    """Which of the space."""
    tokens: Tensor
    """(prompts, length) ids: start, name, end; cut where every prompt of the space has ended."""
    ends: Tensor
    """(prompts) where each ends, what stands between start and name counted."""
    whole: bool
    """Every token is encoded, also those after the end."""


class ShardEncoder:
    """A shard made ready for whatever stands between start and name."""

    def __init__(self, tower: TextTower, shard: Shard) -> None:
        self.tower = tower
        with torch.no_grad():
            embedded = tower.embed(shard.tokens)
        self.start, self.rest = embedded[:, :1], embedded[:, 1:]
        self.packing = None if shard.whole else tower.pack(shard.ends)
        self.ends = shard.ends.to(self.rest.device)

    def __call__(self, between: Tensor) -> Tensor:
        """(prompts, width), not normalised; `between` is (prompts, tokens, token width)."""
        after_start = torch.cat([between, self.rest], dim=1)
        if self.packing is not None:
            return self.tower.encode_after_start(after_start, self.packing)
        return self.tower.encode(torch.cat([self.start, after_start], dim=1), self.ends)


@dataclass(frozen=True, eq=False)
class _Work:
    """A work item: a shard to encode, or to pull on."""

    shard: Shard
    between: Tensor
    pull: Tensor | None
    half: bool
    """Products in bf16."""


class _PromptWorker:
    """Holds the frozen text tower."""

    def __init__(self, backbone: Backbone, weights: tuple[str, ...], device: str) -> None:
        self.device = torch.device(device)
        self.tower = _tower(backbone, weights, device)

    def __call__(self, work: _Work) -> Tensor:
        between = work.between.to(self.device)
        pull = None if work.pull is None else work.pull.to(self.device)
        with torch.no_grad():
            encoder = ShardEncoder(self.tower, work.shard)
        with torch.set_grad_enabled(pull is not None):
            moved = between.requires_grad_(pull is not None)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=work.half):
                vectors = encoder(moved)
        # Outside of autocast, as a trainer goes back: products in float32 stay so.
        return (vectors if pull is None else torch.autograd.grad(vectors, moved, pull)[0]).cpu()


@lru_cache(maxsize=2)
def _tower(backbone: Backbone, weights: tuple[str, ...], device: str) -> TextTower:
    """Kept by the process: a worker is built anew for each way forth and back."""
    if backbone_digests(backbone) != weights:
        raise DataError(
            "the backbone's weights read here are not those of the process that trains",
            got=backbone.name,
            do="put the same files at the same paths on every node",
        )
    return load_encoder(backbone, torch.device(device)).text


@dataclass(frozen=True, eq=False)
class Crew:
    """The workers of a pool that encode prompts, and the tower that they hold."""

    pool: Pool
    backbone: Backbone
    weights: tuple[str, ...]
    """Digests of the backbone's files."""
    device: str

    @classmethod
    def of(cls, execution: Execution, backbone: Backbone, pool: Pool) -> Crew | None:
        """None where the trainer encodes."""
        if execution.encodes == "trainer":
            return None
        device = "cuda" if execution.pool == "ray" and execution.worker.gpus else "cpu"
        return cls(pool, backbone, backbone_digests(backbone), device)

    def encode(self, shards: Sequence[Shard], between: Tensor) -> Tensor:
        """(prompts, width) of all shards; gradients reach what stands between."""
        found: Tensor = _ByCrew.apply(between, shards, self)
        return found

    def run(
        self, shards: Sequence[Shard], between: Tensor, pull: Tensor | None, half: bool
    ) -> Tensor:
        """What the workers made of each shard, in order."""
        still = between.detach().cpu()
        pulls = None if pull is None else pull.detach().cpu()
        works = (
            # A slice would travel with all of what it is a slice of.
            _Work(s, still[s.rows].clone(), None if pulls is None else pulls[s.rows].clone(), half)
            for s in shards
        )
        worker = WorkerSpec(_PromptWorker, (self.backbone, self.weights, self.device))
        done = {each.index: each.value for each in self.pool.map_unordered(worker, works)}
        return torch.cat([done[i] for i in range(len(shards))]).to(between.device)


class _ByCrew(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, between: Tensor, shards: Sequence[Shard], crew: Crew) -> Tensor:
        half = torch.is_autocast_enabled(between.device.type)
        ctx.save_for_backward(between)  # type: ignore[attr-defined]
        ctx.asked = shards, crew, half  # type: ignore[attr-defined]
        return crew.run(shards, between, None, half)

    @staticmethod
    def backward(ctx: object, pull: Tensor) -> tuple[Tensor, None, None]:
        (between,) = ctx.saved_tensors  # type: ignore[attr-defined]
        shards, crew, half = ctx.asked  # type: ignore[attr-defined]
        return crew.run(shards, between, pull, half), None, None
