"""CGIL's two prompts: a part of each class's own, and a part mapped from its text vector.

    tokens      k_c = normalise(TextEncoder([SOS][V_c][H_c][name of c][.][EOT])),  H_c = g(e_c)
    residual    k_c = normalise(e_c + (r_c + h(e_c)) / √d)

r and h count in units of a coordinate of a unit vector, 1/√d; r and h's last layer start at
zero. A class that was never trained keeps its text
vector as its key, though g and h would have something to say of it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, assert_never

import torch
from torch import Tensor

from raycl.config.methods import MappedPrompt, MappedResidual, MappedTokens
from raycl.methods.method import Setting
from raycl.methods.parts.key_head import KeyHead, Trainable
from raycl.methods.parts.keys import columns, positions, unit
from raycl.methods.parts.prompts import PromptLearner
from raycl.methods.parts.text_map import TextMap

INIT_STD = 0.02
Keys = Callable[[Tensor | None, Tensor | None], Tensor]
"""From each class's own part and the mapped part, where there are such, to unit keys."""


class MappedHead(KeyHead):
    """Own parts in `own` (classes, or 1 where shared, first), and the map, if there are such."""

    rate: ClassVar[float]
    """Of learning, where nobody names one."""
    own: Tensor | None = None
    map: TextMap | None = None

    def __init__(self, setting: Setting, *, shared: bool) -> None:
        super().__init__(setting)
        self.shared = shared
        self.trained = torch.zeros(setting.classes, dtype=torch.bool)

    @abstractmethod
    def assemble(self, space: tuple[int, ...]) -> Keys:
        """How the keys of these classes are made."""

    def penalty(self, own: Tensor) -> Tensor | None:
        """What the loss adds for the own parts of the space, in its order."""
        return None

    def prepare(self, space: tuple[int, ...], moving: tuple[int, ...] | None = None) -> Trainable:
        """`moving`: the classes whose own parts may move; null is the whole space."""
        moving = space if moving is None else moving
        make, text = self.assemble(space), self.setting.text[columns(space, self.setting.text)]
        parameters: list[Tensor] = []
        spread: Callable[[Tensor], Tensor] | None = None
        if self.own is not None and (self.shared or moving):
            rows = self._rows(moving)
            parameters.append(self.own[rows].clone().requires_grad_())
            spread = self._spread(space, moving)
        own = len(parameters)
        parameters += self.map.copies() if self.map is not None else []

        def own_part() -> Tensor | None:
            if self.own is None:
                return None
            return spread(parameters[0]) if spread else self.own[self._rows(space)]

        def keys() -> Tensor:
            mapped = None if self.map is None else self.map(text, parameters[own:])
            return make(own_part(), mapped)

        def keep(values: list[Tensor]) -> None:
            if own:
                assert self.own is not None
                self.own[self._rows(moving)] = values[0]
            if self.map is not None:
                self.map.take(values[own:])
            self.trained[list(space)] = True

        def penalty() -> Tensor:
            part = own_part()
            assert part is not None
            found = self.penalty(part)
            assert found is not None
            return found

        return Trainable(parameters, keys, keep, penalty if self._penalised else None)

    @property
    def _penalised(self) -> bool:
        return type(self).penalty is not MappedHead.penalty

    def _rows(self, classes: tuple[int, ...]) -> Tensor:
        return columns((0,) if self.shared else classes, self.setting.text)

    def _spread(
        self, space: tuple[int, ...], moving: tuple[int, ...]
    ) -> Callable[[Tensor], Tensor]:
        """From what moves to the own parts of the whole space."""
        assert self.own is not None
        if self.shared:
            return lambda moved: moved.expand(len(space), *moved.shape[1:])
        if moving == space:
            return lambda moved: moved
        still = self.own[columns(space, self.own)]
        at = positions(space, self.setting.classes)[list(moving)].to(still.device)
        return lambda moved: still.index_copy(0, at, moved)

    def all_keys(self) -> Tensor:
        keys = self.setting.text.clone()
        trained = tuple(torch.nonzero(self.trained).flatten().tolist())
        if trained:
            keys[columns(trained, keys)] = self.prepare(trained).keys()
        return keys

    def state(self, seen: tuple[int, ...]) -> dict[str, Tensor]:
        out = {"trained": self.trained[list(seen)]}
        if self.own is not None:
            out["own"] = self.own[self._rows(seen)]
        return out | (self.map.state() if self.map is not None else {})

    def put_back(self, seen: tuple[int, ...], state: Mapping[str, Tensor]) -> None:
        self.trained[list(seen)] = state["trained"].cpu()
        if self.own is not None:
            self.own[self._rows(seen)] = state["own"].to(self.own)
        if self.map is not None:
            self.map.restore(state)


class MappedTokenHead(MappedHead):
    """V and H as tokens of a prompt that the text tower encodes."""

    rate = 0.03

    def __init__(self, setting: Setting, spec: MappedTokens) -> None:
        super().__init__(setting, shared=spec.shared)
        self.spec = spec
        self.learner = PromptLearner(setting, spec, others=int(spec.mapped))
        if spec.tokens:
            self.own = self.learner.context
        if spec.mapped:
            self.map = TextMap(setting, self.learner.context.shape[-1])

    def assemble(self, space: tuple[int, ...]) -> Keys:
        prompts = self.learner.assembly.of(columns(space, self.setting.text))

        def keys(own: Tensor | None, mapped: Tensor | None) -> Tensor:
            soft = [] if own is None else [own]
            soft += [] if mapped is None else [mapped[:, None]]
            return prompts.keys(torch.cat(soft, dim=1)).to(self.setting.device)

        return keys

    @property
    def _penalised(self) -> bool:
        return self.spec.orthogonality > 0

    def penalty(self, own: Tensor) -> Tensor:
        rows = own.flatten(1)
        excess = rows @ rows.T - torch.eye(len(rows), device=rows.device)
        return self.spec.orthogonality * excess.square().mean()


class MappedResidualHead(MappedHead):
    """r and h as moves of the text vector; a class without text has r alone."""

    rate = 3e-4

    def __init__(self, setting: Setting, spec: MappedResidual) -> None:
        super().__init__(setting, shared=spec.shared)
        # A class without a text vector needs a direction to start from.
        noise = torch.empty(setting.classes, setting.width)
        noise.normal_(std=INIT_STD, generator=setting.generator("residual"))
        has_text = setting.has_text.cpu()[:, None]
        self.start = setting.text + noise.masked_fill(has_text, 0.0).to(setting.device)
        if spec.own:
            rows = 1 if spec.shared else setting.classes
            self.own = torch.zeros(rows, setting.width, device=setting.device)
        if spec.mapped:
            self.map = TextMap(setting, setting.width, ends_in_zero=True)

    def assemble(self, space: tuple[int, ...]) -> Keys:
        start = self.start[columns(space, self.start)]
        scale = 1 / math.sqrt(self.setting.width)

        def keys(own: Tensor | None, mapped: Tensor | None) -> Tensor:
            moves = [part for part in (own, mapped) if part is not None]
            return unit(start + scale * sum(moves[1:], moves[0]))

        return keys


def build_mapped_head(spec: MappedPrompt | None, setting: Setting) -> MappedHead:
    """A head before its first training; null takes tokens where there is a text tower."""
    if spec is None:
        spec = MappedResidual() if setting.encoder is None else MappedTokens()
    match spec:
        case MappedTokens():
            return MappedTokenHead(setting, spec)
        case MappedResidual():
            return MappedResidualHead(setting, spec)
        case _:
            assert_never(spec)
