"""LADA (Luo et al. 2025): label-specific memory, tuned text, distribution-preserved training.

    text score      s · cos(x, t_c),  t_c tuned while c's task is learnt, then fixed; s = exp(logit
                    scale), 100 in CLIP
    memory score    m_c(x) = Σ_l exp(-β (1 - W_{c,l} · x/|x|))
    score           text + α · memory

    task begin      W_c ◄ k-means centres of the class's unit vectors, a fresh text branch
    training        CE over all classes learnt, on the task's images and on draws from the mixtures
                    of old classes; only this task's W and text features move (`parts.preserved`)
    task end        a mixture of round Gaussians per class; no vector is kept
    unseen          text scores of all classes; where they name a seen class, + α · memory (`gate`)

Where only vectors are given the text branch is a residual on each class's text vector, not an
adapter in the tower. A class without a sample keeps its text vector and has no memory.
Deviations: the optimiser's momentum is constant over the one cycle; a task is learnt from one
view of each image, the vector that the stream gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.config.lada import LADA
from raycl.methods.context import Context
from raycl.methods.method import Method, Setting, State
from raycl.methods.parts.keys import columns, cosine_scores, positions, unit
from raycl.methods.parts.label_memory import Centres
from raycl.methods.parts.preserved import Images, PreservedTraining, Replay, Scoring
from raycl.methods.parts.prototypes import Prototypes, summarise
from raycl.methods.parts.raw_lengths import vectors_to_model
from raycl.methods.parts.text_branch import begin_text, branch_of
from raycl.streams.stream import Task


@dataclass(frozen=True, eq=False)
class Learnt:
    """What a task leaves: fixed from then on."""

    classes: tuple[int, ...]
    text: Tensor | None
    """(classes, width) tuned features; None where text does not move."""
    memory: Centres | None
    prototypes: Prototypes


class LADAMethod(Method[LADA]):
    """Keeps tuned text features, centres and mixtures, task by task."""

    needs_text = True

    def __init__(self, spec: LADA, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.branch = branch_of(spec.text, setting) if spec.text_branch else "still"
        self.learnt: dict[int, Learnt] = {}
        """By task."""
        self._moved = 0

    def learn(self, task: Task, context: Context) -> None:
        # A task that is learnt again replaces what it left, and does not see it.
        self.learnt = {t: learnt for t, learnt in self.learnt.items() if t < task.index}
        present = set(task.train.y.tolist())
        classes = tuple(c for c in task.classes if c in present)
        if not classes:
            return
        x, y = vectors_to_model(task, self.spec.input, context), task.train.y
        centres, prototypes = summarise(
            x,
            y,
            classes,
            centres=self.spec.centres,
            components=self.spec.components,
            setting=self.setting,
            context=context,
        )
        learnt = self._trained(x, y, Learnt(classes, None, centres, prototypes), context)
        self.learnt[task.index] = learnt

    def _trained(self, x: Tensor, y: Tensor, begun: Learnt, context: Context) -> Learnt:
        spec, setting, classes = self.spec, self.setting, begun.classes
        branch = begin_text(self.branch, classes, spec.bottleneck, context.task, setting)
        assert begun.memory is not None
        memory = begun.memory if spec.memory else None
        rows = memory.rows.clone().requires_grad_() if memory else None
        old = list(self.learnt.values())

        def new_scores(x: Tensor) -> Tensor:
            scores = setting.logit_scale * x @ branch.features().T
            if memory is None or rows is None:
                return scores
            return scores + spec.alpha * memory.with_rows(rows).scores(x, spec.beta)

        @torch.no_grad()
        def old_scores(x: Tensor) -> Tensor:
            return torch.cat([x[:, :0], *(self._scores(x, learnt) for learnt in old)], dim=1)

        scoring = Scoring(old_scores, new_scores, branch.parameters, [] if rows is None else [rows])
        self._moved = sum(p.numel() for p in scoring.parameters)
        replay = Replay.of([learnt.prototypes for learnt in old], spec, setting)
        target = positions(classes, setting.classes)[y.cpu()].to(setting.device)
        images = Images(unit(x.to(setting.device)), target, len(classes))
        PreservedTraining(spec, setting, scoring, replay, images, context).run()
        with torch.no_grad():
            text = branch.features() if spec.text_branch else None
        kept = None if memory is None or rows is None else memory.with_rows(rows.detach())
        return Learnt(classes, text, kept, begun.prototypes)

    def _scores(self, x: Tensor, learnt: Learnt) -> Tensor:
        """(n, classes of the task) text + α · memory of unit vectors."""
        text = learnt.text
        if text is None:
            text = self.setting.text[columns(learnt.classes, x)]
        scores = self.setting.logit_scale * x @ text.T
        if learnt.memory is not None:
            scores += self.spec.alpha * learnt.memory.scores(x, self.spec.beta)
        return scores

    def seen_scores(self, x: Tensor) -> Tensor:
        x, seen = unit(x), columns(self.seen, x)
        scores = cosine_scores(x, self.setting.text[seen], self.setting.logit_scale)
        place = positions(self.seen, self.setting.classes)
        for learnt in self.learnt.values():
            scores[:, place[list(learnt.classes)].to(x.device)] = self._scores(x, learnt)
        return scores

    def union_scores(self, x: Tensor) -> Tensor | None:
        x = unit(x)
        text = cosine_scores(x, self._text(), self.setting.logit_scale)
        scores = text.clone()
        for learnt in self.learnt.values():
            scores[:, columns(learnt.classes, x)] = self._scores(x, learnt)
        if self.spec.gate == "none":
            return scores
        # What memory adds is positive: where the text names a seen class, one stays in front.
        is_seen = torch.zeros(self.setting.classes, dtype=torch.bool, device=x.device)
        is_seen[columns(self.seen, x)] = True
        return torch.where(is_seen[text.argmax(dim=1)][:, None], scores, text)

    def _text(self) -> Tensor:
        """(classes, width) the features of all classes as they stand."""
        text = self.setting.text.clone()
        for learnt in self.learnt.values():
            if learnt.text is not None:
                text[columns(learnt.classes, text)] = learnt.text
        return text

    def state(self) -> State:
        out: State = {}
        for task, learnt in self.learnt.items():
            found = {"classes": torch.tensor(learnt.classes), **vars(learnt.prototypes)}
            if learnt.text is not None:
                found["text"] = learnt.text
            if learnt.memory is not None:
                found |= {"centres": learnt.memory.rows, "sizes": learnt.memory.sizes}
            out |= {f"tasks.{task}.{name}": tensor for name, tensor in found.items()}
        return out

    def restore(self, state: Mapping[str, Tensor]) -> None:
        tasks = sorted({int(name.split(".")[1]) for name in state})
        self.learnt = {task: self._restored(task, state) for task in tasks}

    def _restored(self, task: int, state: Mapping[str, Tensor]) -> Learnt:
        start = f"tasks.{task}."
        found = {
            name.removeprefix(start): tensor.to(self.setting.device)
            for name, tensor in state.items()
            if name.startswith(start)
        }
        return Learnt(
            tuple(found["classes"].tolist()),
            found.get("text"),
            Centres(found["centres"], found["sizes"]) if "centres" in found else None,
            Prototypes(found["weight"], found["mean"], found["variance"]),
        )

    @property
    def trainable_parameters(self) -> int:
        return self._moved
