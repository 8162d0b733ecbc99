"""What makes vectors of images, and can be moved: the base of the two adapters, and the choice.

    lora       inside the visual tower; needs images            (visual_lora.py)
    residual   E(x) = x + (α / r) · B A x on unit vectors x; needs vectors only
    still      the frozen encoder, where a stage of no epochs moves nothing

Those that move begin as the frozen encoder. Their parameters are two tensors, A and B, of which
B starts at zero; whoever trains them does so on copies.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.config.dmc import VisionStage
from raycl.methods.method import Setting
from raycl.methods.parts.keys import unit
from raycl.streams.source import Ints
from raycl.streams.stream import Samples


@dataclass(frozen=True, eq=False)
class LowRank:
    """A and B."""

    down: Tensor
    up: Tensor

    def copy(self, *, trained: bool = False) -> LowRank:
        """Other memory; to be trained, if asked."""
        down, up = self.down.detach().clone(), self.up.detach().clone()
        return LowRank(down.requires_grad_(trained), up.requires_grad_(trained))

    @property
    def tensors(self) -> list[Tensor]:
        return [self.down, self.up]


class VisualAdapter(ABC):
    """An encoder of images that has been moved."""

    def __init__(self, spec: VisionStage, setting: Setting, at: LowRank) -> None:
        self.setting, self.at = setting, at
        self.scale = spec.alpha / spec.rank

    @property
    @abstractmethod
    def kind(self) -> str: ...

    @abstractmethod
    def encode(self, samples: Samples, positions: Ints, at: LowRank) -> Tensor:
        """(n, width) of these samples on the device, differentiable in `at`."""

    @abstractmethod
    def vectors(self, samples: Samples) -> Tensor:
        """(n, width) of all samples on the CPU; each by itself, whatever stands beside it."""

    def state(self) -> dict[str, Tensor]:
        return {"vision.down": self.at.down, "vision.up": self.at.up}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.at = LowRank(state["vision.down"].to(self.at.down), state["vision.up"].to(self.at.up))


class ResidualAdapter(VisualAdapter):
    """Behind the encoder: what it moves is known in closed form, so a mode for diagnosis."""

    kind = "residual"

    def __init__(self, spec: VisionStage, setting: Setting) -> None:
        down = drawn_down((spec.rank, setting.width), setting)
        up = torch.zeros(setting.width, spec.rank, device=setting.device)
        super().__init__(spec, setting, LowRank(down, up))

    def encode(self, samples: Samples, positions: Ints, at: LowRank) -> Tensor:
        return self._moved(samples.x[torch.from_numpy(positions)], at)

    @torch.no_grad()
    def vectors(self, samples: Samples) -> Tensor:
        return self._moved(samples.x, self.at).cpu()

    def _moved(self, x: Tensor, at: LowRank) -> Tensor:
        x = unit(x.to(at.down))
        return x + self.scale * (x @ at.down.T) @ at.up.T


class Still(VisualAdapter):
    """The vectors of the stream as they are."""

    kind = "still"

    def __init__(self, spec: VisionStage, setting: Setting) -> None:
        super().__init__(spec, setting, LowRank(torch.empty(0), torch.empty(0)))

    def encode(self, samples: Samples, positions: Ints, at: LowRank) -> Tensor:
        return samples.x[torch.from_numpy(positions)].to(self.setting.device)

    def vectors(self, samples: Samples) -> Tensor:
        return samples.x

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        pass


def drawn_down(shape: tuple[int, ...], setting: Setting) -> Tensor:
    """A as LoRA begins: uniform, of the variance that keeps a vector's length in bounds."""
    bound = 1 / math.sqrt(shape[-1])
    noise = torch.empty(shape).uniform_(-bound, bound, generator=setting.generator("adapter"))
    return noise.to(setting.device)
