"""The options of Auto-Seed: what a seed is, how it is made, and the four switches."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from raycl.config.spec import Spec


class Adapt(Spec):
    """How the adapters are trained on a task: Adam at a constant rate, fresh for every task."""

    lr: float = Field(1e-4, gt=0)
    """1e-3 in the description: there adapters forget what seeds cannot hold."""
    epochs: int = Field(3, ge=1)
    """1 is the online setting: every sample is met once."""
    batch: int = Field(64, ge=1)


class SeedUpdate(Spec):
    """How the generator is trained on a task, after the adapters."""

    steps: int = Field(100, ge=0)
    """0 leaves the generator as the last task left it: at first it returns prototypes."""
    lr: float = Field(1e-4, gt=0)
    inner_steps: int = Field(1, ge=1, le=5)
    """Of gradient descent on the seeds, behind which the held-out samples are asked."""
    inner_lr: float = Field(1e-2, gt=0)
    held_out: float = Field(0.05, gt=0, lt=1)
    """Share of a class's samples that judges its seeds, at least one where there are two."""
    old_scale: float = Field(0.3, gt=0)
    """Of the logits, where old seeds judge beside held-out samples; 1 in the description. An old
    seed is the middle of a class that is wider: at full scale it is safe while the class's edge
    is lost to new keys."""


class AutoSeed(Spec):
    """A few generated pairs of a visual and a textual prototype per class, and two adapters."""

    revision: ClassVar[int] = 3
    kind: Literal["autoseed"] = "autoseed"
    per_class: int = Field(4, ge=1)
    """Seeds generated for each class; similar ones are merged."""
    memory: int = Field(1000, ge=1)
    """Seeds kept in all; each class keeps one, even beyond that."""
    rank: int = Field(16, ge=1)
    hidden: int = Field(1024, ge=1)
    noise: int = Field(32, ge=1)
    """Dimensions in which the seeds of a class differ before they are generated."""
    fusion: float = Field(0.5, ge=0, le=1)
    """Weight of the seeds beside the text vector in a class's key."""
    temperature: float = Field(0.07, gt=0)
    """Of the consistency between the two sides of a seed."""
    anchor_image: float = Field(50.0, ge=0)
    """Weight of ‖v - μ‖² in the generator's loss, 1 in the description: there seeds leave the
    images for where they are easily told apart, and protect nothing when they are replayed."""
    anchor_text: float = Field(1.0, ge=0)
    """Weight of ‖w - t‖²."""
    order: Literal["seeds_first", "seeds_last"] = "seeds_first"
    """Whether a task's seeds are made before the adapters are trained on it, or, as described,
    after: then keys move when the adapters have been fitted to them."""
    consistency: bool = True
    gradient_conditioning: bool = True
    """Whether the generator is told the class's gradients, or noise in their place."""
    meta_update: bool = True
    """Whether held-out samples judge the seeds by what adapters trained on them do."""
    pruning: bool = True
    """Whether seeds that are alike are merged, and the least useful dropped beyond `memory`."""
    adapt: Adapt = Adapt()
    update: SeedUpdate = SeedUpdate()
    unseen: Literal["none", "gate"] = "gate"
