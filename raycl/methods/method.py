"""The contract of a method: what the engine gives it, and what it must give back.

    setting  ─► __init__         what is known before any task: classes, text, seeds
    task     ─► learn            once per task, in order; nothing of earlier tasks is given
    samples  ─► vectors          what is scored: theirs, unless the method encodes them itself
    vectors  ─► seen_scores      one column per class seen so far, in `self.seen`'s order
             ─► union_scores     one column per class of the stream, or None: no rule
    state    ◄► restore          all that is kept between tasks, as named tensors

Guarantees that the engine relies on: after `restore(state())` a fresh instance scores and
learns exactly as the old one would have, and learning the same task twice from the same
state gives the same state. Class ids are always the data set's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from raycl.backbones.encoder import Encoder
from raycl.config.seeds import seed_for
from raycl.config.spec import Spec
from raycl.config.streams import Validation
from raycl.errors import DataError
from raycl.methods.context import Context
from raycl.methods.parts.keys import cosine_scores
from raycl.methods.parts.prompt_shards import Crew
from raycl.streams.stream import Samples, Task

S = TypeVar("S", bound=Spec)
State = dict[str, Tensor]
Figures = dict[str, float | str | None]


@dataclass(frozen=True)
class Setting:
    """What a method may know before the first task: never a sample."""

    class_names: tuple[str, ...]
    text: Tensor
    """(classes, width) text vectors, unit length; zero rows where a class has none."""
    has_text: Tensor
    logit_scale: float
    init_seed: int
    validation: Validation
    """Whose held-out samples may choose something; see `Task.held_out`."""
    device: torch.device
    encoder: Encoder | None = None
    """The frozen towers behind the vectors; None where the stream gives vectors only."""
    crew: Crew | None = None
    """Workers that encode prompts; None where this process does."""

    @property
    def classes(self) -> int:
        return int(self.text.shape[0])

    @property
    def width(self) -> int:
        return int(self.text.shape[1])

    def zero_shot(self, x: Tensor) -> Tensor:
        """(n, classes) scores of the text vectors alone."""
        return cosine_scores(x, self.text, self.logit_scale)

    def generator(self, purpose: str, *ids: int | str) -> torch.Generator:
        """A CPU random stream of its own for one purpose."""
        return torch.Generator().manual_seed(seed_for(self.init_seed, purpose, *ids))


class Method(ABC, Generic[S]):
    """Base of every method, ours and yours. `S` is the spec of its options."""

    needs_text: ClassVar[bool] = False
    """Refuse a stream in which a class has no text vector."""

    def __init__(self, spec: S, setting: Setting) -> None:
        self.spec = spec
        self.setting = setting
        self.seen: tuple[int, ...] = ()
        """Class ids seen so far, set by the engine before `learn` and after `restore`."""
        if self.needs_text:
            require_text(self, setting)

    @property
    def scores_unseen(self) -> bool:
        """Whether `union_scores` has a rule for classes not learnt yet."""
        return type(self).union_scores is not Method.union_scores

    @abstractmethod
    def learn(self, task: Task, context: Context) -> None:
        """Learn one task. Earlier tasks' samples are gone."""

    def vectors(self, samples: Samples) -> Tensor:
        """(n, width) of these samples, which the scores are then asked for.

        Theirs as they are; a method that moves the visual tower encodes their pixels. The
        engine asks once after each task, and never changes what it gets.
        """
        return samples.x

    @abstractmethod
    def seen_scores(self, x: Tensor) -> Tensor:
        """(n, len(self.seen)) scores of the classes seen so far; the highest wins."""

    def union_scores(self, x: Tensor) -> Tensor | None:
        """(n, classes) scores over all classes of the stream, or None: no such rule."""
        return None

    @abstractmethod
    def state(self) -> State:
        """All that is kept between tasks."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Become the method whose `state` this was."""

    @property
    def trainable_parameters(self) -> int:
        """The most parameters that the last task's training moved at once."""
        return 0

    @property
    def stored(self) -> dict[str, int]:
        """What it keeps in the store rather than in its state: keys, and bytes of each.

        They are kept as long as the state, counted with it, and it is worth nothing without.
        """
        return {}

    @property
    def figures(self) -> Figures:
        """What the reader of a result should know of the task learnt last."""
        return {}

    def figures_of_tests(self, tests: Samples, x: Tensor) -> Figures:
        """The same from the tests of all tasks, as `vectors` gave them.

        Labels of tests are in here: nothing that is learnt later may depend on it.
        """
        return {}


def require_text(method: object, setting: Setting) -> None:
    """A DataError that names the classes without a text vector, if there are any."""
    missing = [setting.class_names[c] for c in torch.nonzero(~setting.has_text).flatten().tolist()]
    if missing:
        kind = getattr(getattr(method, "spec", None), "kind", type(method).__name__)
        some = len(missing) < setting.classes
        keep = "set stream.classes=with_text to keep those that have one, or " if some else ""
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        raise DataError(
            f"{kind} needs a text vector for every class",
            got=f"{len(missing)} of {setting.classes} classes have none: {shown}",
            do=f"{keep}use a method that needs no text",
        )
