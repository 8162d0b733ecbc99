"""The prompts of DMC and DMC-OT: one context for all, or one of each class and each task.

    shared     [SOS][V: 16][name][.][EOT]              V moves in every task
    of tasks   [SOS][V_c: 12][U_t: 12][name][.][EOT]   V_c and U_t move in the task of c alone
    vectors    k_c = normalise(e_c + r_c / √d)         r moves in every task, or in that of c

The last is for streams that bring no text tower.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from raycl.backbones.encoder import Encoder
from raycl.config.dmc import DMCOT, TwoStages
from raycl.config.methods import MappedResidual, MappedTokens
from raycl.methods.method import Setting
from raycl.methods.parts.key_head import KeyHead, Trainable
from raycl.methods.parts.keys import columns
from raycl.methods.parts.mapped_heads import MappedResidualHead, MappedTokenHead
from raycl.methods.parts.prompts import INIT_STD, PromptAssembly, Prompts

Classes = tuple[int, ...]


class StageHead(KeyHead):
    """A head whose keys somebody else trains."""

    rate: ClassVar[float]
    """Of learning, where nobody names one."""

    @abstractmethod
    def prepare(self, space: Classes, moving: Classes | None = None) -> Trainable:
        """`moving`: the classes of the space that are new."""

    def settle(self, trainable: Trainable) -> None:
        """Take over what training made of the parameters."""
        self._moved = sum(p.numel() for p in trainable.parameters)
        trainable.keep([p.detach() for p in trainable.parameters])
        self._known_keys = None


class SharedContext(MappedTokenHead, StageHead):
    """One context for all classes."""

    rate = 2e-3


class Residuals(MappedResidualHead, StageHead):
    """A residual of each class."""

    rate = 3e-4


@dataclass(frozen=True, eq=False)
class _Group:
    """The prompts that one task brought."""

    classes: Classes
    own: Tensor
    """(classes, tokens, token width)"""
    task: Tensor
    """(1, tokens, token width)"""

    def between(self) -> Tensor:
        return torch.cat([self.own, self.task.expand(len(self.own), -1, -1)], dim=1)


class TaskContexts(StageHead):
    """A context of each class, and one that the classes of a task share; trained once."""

    rate = 2e-3

    def __init__(
        self, setting: Setting, encoder: Encoder, class_tokens: int, task_tokens: int
    ) -> None:
        super().__init__(setting)
        self.tokens = class_tokens, task_tokens
        self.tower = encoder.text
        self.assembly = PromptAssembly(
            self.tower, setting.class_names, sum(self.tokens), crew=setting.crew
        )
        self.groups: list[_Group] = []

    def prepare(self, space: Classes, moving: Classes | None = None) -> Trainable:
        new = space if moving is None else moving
        before = space[: len(space) - len(new)]
        assert space == before + new, "new classes come last"
        prompts, begun = self._prompts(new), self._begin(new)
        own, task = begun.own.requires_grad_(), begun.task.requires_grad_()
        with torch.no_grad():
            frozen = self.all_keys()[columns(before, self.setting.text)]

        def keys() -> Tensor:
            found = prompts.keys(_Group(new, own, task).between())
            return torch.cat([frozen, found.to(frozen)])

        def keep(values: list[Tensor]) -> None:
            self.groups.append(_Group(new, values[0], values[1] if len(values) > 1 else task))

        parameters = [own, task] if self.tokens[1] else [own]
        return Trainable(parameters, keys, keep)

    def _prompts(self, classes: Classes) -> Prompts:
        return self.assembly.of(torch.tensor(classes, dtype=torch.long))

    def _begin(self, classes: Classes) -> _Group:
        """Noise of each class's own, so that its neighbours do not move it."""
        own = [self._noise(self.tokens[0], "class prompt", c) for c in classes]
        task = self._noise(self.tokens[1], "task prompt", len(self.groups))
        return _Group(classes, torch.stack(own), task[None])

    def _noise(self, tokens: int, purpose: str, number: int) -> Tensor:
        noise = torch.empty(tokens, self.tower.token_width)
        noise.normal_(std=INIT_STD, generator=self.setting.generator(purpose, number))
        return noise.to(self.setting.device)

    def all_keys(self) -> Tensor:
        keys = self.setting.text.clone()
        for group in self.groups:  # as they were trained, so that they round alike
            found = self._prompts(group.classes).keys(group.between())
            keys[columns(group.classes, keys)] = found.to(keys)
        return keys

    def state(self, seen: Classes) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for i, group in enumerate(self.groups):
            out[f"prompts.{i}.classes"] = torch.tensor(group.classes)
            out[f"prompts.{i}.own"], out[f"prompts.{i}.task"] = group.own, group.task
        return out

    def put_back(self, seen: Classes, state: Mapping[str, Tensor]) -> None:
        self.groups = []
        while (at := f"prompts.{len(self.groups)}.") + "classes" in state:
            own, task = (state[at + part].to(self.setting.device) for part in ("own", "task"))
            self.groups.append(_Group(tuple(state[f"{at}classes"].tolist()), own, task))


def build_prompts(spec: TwoStages, setting: Setting) -> StageHead:
    """The head before its first training."""
    if setting.encoder is None:
        return Residuals(setting, MappedResidual())
    if isinstance(spec, DMCOT) and spec.task_prompts:
        return TaskContexts(setting, setting.encoder, spec.class_tokens, spec.task_tokens)
    shared = MappedTokens(tokens=spec.text.tokens, shared=True, mapped=False)
    return SharedContext(setting, shared)
