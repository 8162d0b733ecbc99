"""Zero-shot CLIP (Radford et al. 2021): argmax over c of cos(x, text_c). Learns nothing.

The line below which no method may fall, and what scores a class before it is learnt.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from raycl.config.methods import ZeroShot
from raycl.methods.context import Context
from raycl.methods.method import Method, State
from raycl.methods.parts.keys import columns
from raycl.streams.stream import Task


class ZeroShotMethod(Method[ZeroShot]):
    """The text vectors as they are."""

    needs_text = True

    def learn(self, task: Task, context: Context) -> None:
        pass

    def seen_scores(self, x: Tensor) -> Tensor:
        return self.union_scores(x)[:, columns(self.seen, x)]

    def union_scores(self, x: Tensor) -> Tensor:
        return self.setting.zero_shot(x)

    def state(self) -> State:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        pass
