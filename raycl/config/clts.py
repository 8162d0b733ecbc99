"""The options of CLTS: what is remembered of a class, the router, the heads, the routing.

Where the paper's tables could not be read, the values are ours, and all of them options.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from raycl.config.captions import AttributesCaptioner, Captioning
from raycl.config.spec import Spec
from raycl.config.synthesis import Synthesis


class Heads(Spec):
    """How a task's classifier is trained: AdamW at a cosine rate, on its own real vectors."""

    lr: float = Field(1e-3, gt=0)
    epochs: int = Field(20, ge=1)
    batch: int = Field(128, ge=1)
    weight_decay: float = Field(1e-4, ge=0)
    least_steps: int = Field(400, ge=0)
    """Epochs are added until there are so many steps: a task may have few samples."""


class _Trained(Spec):
    """A network of one hidden layer: AdamW at a cosine rate."""

    hidden: int = Field(256, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    epochs: int = Field(20, ge=1)
    batch: int = Field(256, ge=1)
    least_steps: int = Field(400, ge=0)
    """Epochs are added until there are so many steps."""


class TrainedRouter(_Trained):
    """Trained anew after each task, on what is remembered of all tasks, each class alike."""

    kind: Literal["trained"] = "trained"


class NaiveRouter(_Trained):
    """The same network, trained on by each task's own real vectors: it remembers nothing, and
    sends what it sees to the newest task. The line that CLTS is measured by."""

    kind: Literal["naive"] = "naive"


class NCMRouter(Spec):
    """The task of the nearest class mean, of what is remembered."""

    kind: Literal["ncm"] = "ncm"


class EnergyRouter(Spec):
    """The task whose head has the most energy, T · log Σ exp(logit / T); needs no memory."""

    kind: Literal["energy"] = "energy"
    temperature: float = Field(1.0, gt=0)


RouterSpec = Annotated[
    TrainedRouter | NaiveRouter | NCMRouter | EnergyRouter, Field(discriminator="kind")
]


class CLTS(Spec):
    """Captions instead of images: synthetic images of all tasks train a router to task heads."""

    kind: Literal["clts"] = "clts"
    replay: Literal["synthetic", "real", "mixed"] = "synthetic"
    """What is remembered of the captioned images: their captions; the images themselves, which
    is the control; or some of each."""
    real_share: float = Field(0.5, ge=0, le=1)
    """Of the images, where replay is mixed."""
    captions: Captioning = Captioning(captioner=AttributesCaptioner(slots=("ink", "ground")))
    """Of the phrase bank, by default, what tiny-SD has words for: colours."""
    template: str = "a photo of a {class}, {caption}"
    """What is drawn of a caption; `{caption}` alone is an ablation."""
    images_per_caption: int | None = Field(None, ge=1)
    """Null: 1 of 50 captions or more, else as many as give a class a hundred images."""
    synthesis: Synthesis = Synthesis()
    resize: bool = True
    """Synthetic images are brought down to the resolution of their class's own, so that no
    router can go by their sharpness."""
    shift: Literal["class", "task", "none"] = "class"
    """What synthetic vectors are moved by: the difference of real and synthetic means, of each
    class or over a task's classes, taken when the task is learnt and kept, a vector each.
    `none`, as published, leaves them where the generator's style puts them."""
    router: RouterSpec = TrainedRouter()
    heads: Heads = Heads()
    routing: Literal["hard", "soft"] = "hard"
    """One head alone, or all of them weighted by the router."""
    classifier: Literal["routed", "joint"] = "routed"
    """`joint`: one classifier of all classes, trained on what is remembered; the control that
    has neither router nor heads."""
    unseen: Literal["none", "gate"] = "none"

    @field_validator("template")
    @classmethod
    def _says_something(cls, template: str) -> str:
        rest = template.replace("{class}", "").replace("{caption}", "")
        if rest == template or "{" in rest or "}" in rest:
            raise ValueError("a template holds {class}, {caption} or both, and no other braces")
        return template

    @model_validator(mode="after")
    def _is_routed(self) -> CLTS:
        if self.classifier == "joint" and self.routing == "soft":
            raise ValueError("classifier=joint has no router, so routing=soft says nothing")
        return self

    @property
    def remembers(self) -> bool:
        """Whether anything of past classes is needed besides the heads."""
        return self.classifier == "joint" or isinstance(self.router, TrainedRouter | NCMRouter)

    @property
    def synthesises(self) -> bool:
        """Whether captions are made, and images of them."""
        return self.remembers and self.replay != "real"

    @property
    def models(self) -> tuple[Captioning | Synthesis, ...]:
        """What it captions and draws with."""
        return (self.captions, self.synthesis) if self.synthesises else ()
