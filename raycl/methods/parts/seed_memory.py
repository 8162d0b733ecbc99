"""The seeds that are kept, in one group for each task that brought some.

A group changes only when one of its seeds is dropped, so that a run's states share the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from raycl.methods.parts.keys import unit
from raycl.methods.parts.seed_pruning import kept_seeds
from raycl.methods.parts.seeds import Seeds, merged

SIDES = ("v", "w", "y")


class SeedMemory:
    """Seeds by class id."""

    def __init__(self) -> None:
        self.groups: list[Seeds] = []

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups)

    def seeds(self, position: Tensor) -> Seeds | None:
        """All seeds, their classes by position instead of by id; None where there are none."""
        if not len(self):
            return None
        found = Seeds.joined(self.groups)
        return Seeds(found.v, found.w, position[found.y])

    def add(self, v: Tensor, w: Tensor, classes: Tensor, *, merge: bool) -> Seeds:
        """The (classes, m, d) seeds of a task; those of a class that are alike become one.

        Gives what was added.
        """
        if merge:
            members = merged(v, w)
            v, w = unit(members @ v), unit(members @ w)
            alive = members.any(dim=2)
        else:
            alive = torch.ones(v.shape[:2], dtype=torch.bool, device=v.device)
        y = classes[:, None].expand(alive.shape)
        self.groups.append(Seeds(v[alive], w[alive], y[alive]))
        return self.groups[-1]

    def drop(self, most: int, position: Tensor, uses: Callable[[Seeds], Tensor]) -> None:
        """Keep so many, and of every class one."""
        seeds = self.seeds(position)
        if seeds is None or len(seeds) <= most:
            return
        sizes = [len(group) for group in self.groups]
        keep = torch.split(kept_seeds(seeds, most, uses), sizes)
        self.groups = [
            group if bool(stay.all()) else group.take(stay.to(group.y.device))
            for group, stay in zip(self.groups, keep, strict=True)
        ]

    def state(self) -> dict[str, Tensor]:
        """All groups, side by side."""
        return {
            f"seeds.{i}.{side}": getattr(group, side)
            for i, group in enumerate(self.groups)
            for side in SIDES
        }

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Take back what `state` gave."""
        self.groups = []
        while (at := f"seeds.{len(self.groups)}.") + "y" in state:
            self.groups.append(Seeds(*(state[f"{at}{side}"].to(device) for side in SIDES)))
