"""Heads that know seen classes only, and meet the others through the zero-shot gate.

The gate is the zero-shot argmax over the union: where it names an unseen class, the
zero-shot ranking of the unseen ones stands; elsewhere the head's own ranking. The two are
never compared, because their levels differ (class means lie at cosines near 0.88, text
vectors near 0.32).
"""

from __future__ import annotations

from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor

from raycl.config.methods import Unseen
from raycl.config.spec import Spec
from raycl.methods.method import Method, Setting, require_text
from raycl.methods.parts.keys import FLOOR, columns

S = TypeVar("S", bound=Spec)


class _Gateable(Protocol):
    unseen: Unseen


class GatedMethod(Method[S]):
    """A method whose option `unseen` is `none` or `gate`."""

    def __init__(self, spec: S, setting: Setting) -> None:
        super().__init__(spec, setting)
        if self.scores_unseen:
            require_text(self, setting)

    @property
    def scores_unseen(self) -> bool:
        return cast(_Gateable, self.spec).unseen == "gate"

    def union_scores(self, x: Tensor) -> Tensor | None:
        if not self.scores_unseen:
            return None
        return gate(self.seen_scores(x), self.seen, self.setting.zero_shot(x))


def gate(seen_scores: Tensor, seen: tuple[int, ...], zero_shot: Tensor) -> Tensor:
    """Union scores of a head that scores the seen classes only."""
    index = columns(seen, zero_shot)
    is_seen = torch.zeros(zero_shot.shape[1], dtype=torch.bool, device=zero_shot.device)
    is_seen[index] = True
    # A head whose classes all lack samples can predict nothing.
    goes_to_seen = is_seen[zero_shot.argmax(dim=1)] & (seen_scores > FLOOR).any(dim=1)
    out = zero_shot.masked_fill(is_seen, FLOOR)
    head = torch.full_like(zero_shot, FLOOR)
    head[:, index] = seen_scores.to(head)
    return torch.where(goes_to_seen[:, None], head, out)
