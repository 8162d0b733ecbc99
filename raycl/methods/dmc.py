"""DMC and DMC-OT (arXiv 2511.10974): vision and text in turn, drift-aware Gaussians replayed.

    1 vision   E_t: LoRA on q, v;  CE(exp(scale) · cos(E_t(x), text of y), y), current classes only
    memory     Gaussians of old classes follow E_{t-1} → E_t (DMC-OT; plain DMC leaves them):
               μ_c ← μn + A (μ_c − μo),  Σ_c ← A Σ_c A,  A the transport of the current vectors;
               then μ, Σ of the unit vectors E_t(x) of each new class
    2 text     prompts: CE over all classes seen, on real current vectors and drawn ones
               DMC-OT: + λ · mean over new c, old c' of max(0, cos(k_c, k_c') − cos(e_c, e_c'))
    inference  argmax of ⟨E_t(x), k_c⟩; an unseen class by its text

Where vectors are given without images, E_t is a low-rank map behind the frozen encoder, and a
key is text plus a residual. In no stage are images of an earlier task at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from raycl.config.dmc import DMCOT, NoCalibration, TwoStages
from raycl.generators.adamw import AdamW
from raycl.methods.context import Context
from raycl.methods.method import Figures, Method, Setting, State
from raycl.methods.parts.calibration.drift import Moved
from raycl.methods.parts.calibration.monge import drift_size
from raycl.methods.parts.descent import descend
from raycl.methods.parts.gaussian_epochs import GaussianEpochs
from raycl.methods.parts.gaussian_memory import GaussianMemory
from raycl.methods.parts.key_head import Trainable
from raycl.methods.parts.keys import columns, unit
from raycl.methods.parts.stage_losses import ImageLoss, ReplayLoss
from raycl.methods.parts.stage_prompts import build_prompts
from raycl.methods.parts.visual_lora import build_adapter
from raycl.streams.stream import Samples, Task

Classes = tuple[int, ...]


class DMCMethod(Method[TwoStages]):
    """Keeps the adapter, the prompts and a Gaussian per class."""

    needs_text = True

    def __init__(self, spec: TwoStages, setting: Setting) -> None:
        super().__init__(spec, setting)
        own = spec if isinstance(spec, DMCOT) else None
        self.calibrator = own.calibrator if own else NoCalibration()
        self.separability = own.separability if own else 0.0
        self.trained_once = own is not None and own.task_prompts
        self.vision = build_adapter(spec.vision, setting)
        self.head = build_prompts(spec, setting)
        self.memory = GaussianMemory(setting)
        self._figures: Figures = {}

    def learn(self, task: Task, context: Context) -> None:
        if not len(task.train):
            return
        before = self.vision.vectors(task.train)
        match self.spec.order:
            case "vision_text":
                self._move_vision(task, self._texts(task.classes), context)
                after = self._remember(before, task, context)
                self._train_text(after, task, context)
            case "text_vision":
                self.memory.learn(before, task.train.y, task.classes, context)
                self._train_text(before, task, context)
                keys = self.head.all_keys()
                self._move_vision(task, keys[columns(task.classes, keys)], context)
                self._remember(before, task, context)
            case "coupled":
                self._train_both(task, context)
                self._remember(before, task, context)

    def _texts(self, classes: Classes) -> Tensor:
        """Unit text vectors that images are trained against."""
        encoder = self.setting.encoder
        if encoder is None:
            return self.setting.text[columns(classes, self.setting.text)]
        names = [self.setting.class_names[c] for c in classes]
        texts = [self.spec.vision.template.format(name) for name in names]
        return unit(encoder.encode_texts(texts).to(self.setting.device))

    def _move_vision(self, task: Task, keys: Tensor, context: Context) -> None:
        """Stage 1: the adapter, against the keys of the task's classes."""
        stage, moved = self.spec.vision, self.vision.at.copy(trained=True)
        loss = ImageLoss(self.vision, moved, task.train, task.classes, stage.batch, context)
        group, steps = AdamW(moved.tensors, stage.lr), stage.epochs * loss.per_epoch
        descend([group], lambda step: loss(step, keys), steps, context, "vision")
        self.vision.at = moved.copy()

    def _remember(self, before: Tensor, task: Task, context: Context) -> Tensor:
        """Carry the old statistics along, take those of the task; its vectors as they are now."""
        after, y = self.vision.vectors(task.train), task.train.y
        moved = Moved.of(unit(before), unit(after), y)
        self.memory.calibrate(self.calibrator, moved, context)
        self.memory.learn(after, y, task.classes, context)
        distance = float((moved.after - moved.before).norm(dim=1).mean())
        self._figures = {
            "vision": self.vision.kind,
            "log_bw2": math.log(drift_size(moved)) if distance else None,
            "moved": distance,
        }
        return after

    def _train_text(self, x: Tensor, task: Task, context: Context) -> None:
        """Stage 2: prompts, on all classes that have a Gaussian."""
        space, stage = self.memory.classes, self.spec.text
        trainable = self._prompts(space, task)
        loss = self._replay_loss(x, task.train.y, space, task, context)
        steps = stage.epochs * loss.epochs.per_epoch
        descend(
            [self._text_group(trainable)],
            lambda step: loss(step, trainable.keys()),
            steps,
            context,
            "text",
            stage.clip,
        )
        self.head.settle(trainable)

    def _train_both(self, task: Task, context: Context) -> None:
        """Both stages as one: the task's images, and older classes' Gaussians as they are."""
        x, y, stage, old = task.train.x, task.train.y, self.spec.text, self.memory.classes
        space = old + tuple(c for c in task.classes if bool((y == c).any()))
        trainable, moved = self._prompts(space, task), self.vision.at.copy(trained=True)
        batch = self.spec.vision.batch
        images = ImageLoss(self.vision, moved, task.train, space, batch, context)
        replay = self._replay_loss(x[:0], y[:0], space, task, context)

        def loss(step: int) -> Tensor:
            keys = trainable.keys()
            found = images(step, keys)
            return found + replay(step, keys) if old else found

        groups = [AdamW(moved.tensors, self.spec.vision.lr), self._text_group(trainable)]
        steps = stage.epochs * max(images.per_epoch, replay.epochs.per_epoch)
        descend(groups, loss, steps, context, "coupled", stage.clip)
        self.vision.at = moved.copy()
        self.head.settle(trainable)

    def _prompts(self, space: Classes, task: Task) -> Trainable:
        new = tuple(c for c in space if c in task.classes)
        return self.head.prepare(space, new if self.trained_once else None)

    def _text_group(self, trainable: Trainable) -> AdamW:
        stage = self.spec.text
        return AdamW(trainable.parameters, stage.lr or self.head.rate, stage.weight_decay)

    def _replay_loss(
        self, x: Tensor, y: Tensor, space: Classes, task: Task, context: Context
    ) -> ReplayLoss:
        """On these real vectors, and what is drawn of the classes in memory."""
        stage = self.spec.text
        epochs = GaussianEpochs(self.memory, (x, y), stage.per_class, stage.batch, context)
        return ReplayLoss(epochs, space, task.classes, self.separability)

    def vectors(self, samples: Samples) -> Tensor:
        return self.vision.vectors(samples)

    def seen_scores(self, x: Tensor) -> Tensor:
        return self.head.seen_scores(x, self.seen)

    def union_scores(self, x: Tensor) -> Tensor | None:
        return self.head.union_scores(x)

    def state(self) -> State:
        return {**self.vision.state(), **self.head.state(self.seen), **self.memory.state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.vision.restore(state)
        self.head.restore(self.seen, state)
        self.memory.restore(state)

    @property
    def trainable_parameters(self) -> int:
        vision = sum(tensor.numel() for tensor in self.vision.at.tensors)
        return max(vision, self.head.trainable_parameters)

    @property
    def stored(self) -> dict[str, int]:
        return self.memory.stored

    @property
    def figures(self) -> Figures:
        return self._figures

    def figures_of_tests(self, tests: Samples, x: Tensor) -> Figures:
        """How far the means that are replayed lie from those of the tests: of older classes as
        calibrated and as they came, and of the newest task's, which nothing has moved since."""
        return self.memory.errors(unit(x), tests.y)
