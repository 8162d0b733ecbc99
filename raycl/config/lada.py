"""The options of LADA: label-specific memory, a text branch, distribution-preserved training.

Defaults are the constants of the authors' code. Where their paper says otherwise, or a part is
to be left out, there is an option.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raycl.config.spec import Spec

Epochs = Annotated[int, Field(ge=1)]


class LADA(Spec):
    """Text features tuned task by task, a memory of centres per class, replayed mixtures."""

    kind: Literal["lada"] = "lada"
    input: Literal["raw", "unit"] = "raw"
    """What the mixtures are fitted to: vectors as the backbone gave them, as published, or
    scaled to length one. All else sees unit vectors."""
    text: Literal["residual", "adapter"] | None = None
    """What moves a text feature: a vector of the class's own, or an adapter in the text tower.
    Null: the adapter where the backbone has a text tower, else the residual."""
    text_branch: bool = True
    """False: text features stay as they are."""
    memory: bool = True
    """False: no centres, the score is the text's alone."""
    dpt: bool = True
    """Distribution-preserved training. False: the bare means of the mixtures are replayed, all
    of one weight."""
    gate: Literal["text", "none"] = "text"
    """Where the memory counts when unseen classes compete: where the text names a seen class,
    as published, or everywhere."""
    loss: Literal["code", "paper", "balanced"] = "code"
    """Mean over all rows of a step; class by class, images' mean + prototypes' mean; or every
    class alike, which neither does: of 20 new classes beside 176 old ones `code` counts a new
    one for a twentieth of an old one, `paper` for nine."""
    centres: int = Field(16, ge=1)
    """Of a class in the memory, at most its distinct samples; λ1."""
    components: int = Field(4, ge=1)
    """Of a class's mixture, at most its distinct samples; λ2."""
    alpha: float = Field(1.0, ge=0)
    """Weight of the memory beside the text."""
    beta: float = Field(1.0, gt=0)
    """How fast the memory forgets with distance."""
    bottleneck: int = Field(16, ge=1)
    """Width of the text adapter."""
    lr: float = Field(1e-3, gt=0)
    """The highest rate of the one cycle."""
    text_lr: float | None = Field(None, gt=0)
    """Of the text branch; null: `lr`."""
    weight_decay: float = Field(5e-4, ge=0)
    epochs: Epochs | tuple[Epochs, ...] = 30
    """For every task, or one number for each task in order. Published at 16 shots: aircraft 40,
    caltech 10, dtd 30, eurosat 100, flowers 30, food 5, mnist 200, pets 10, cars 30, sun 10."""
    batch: int = Field(64, ge=1)
    prototype_batch: int = Field(4096, ge=1)
    """Replayed rows of a step, drawn among all where there are more."""
    prototype_weight: float | None = Field(None, ge=0)
    """Of a class's replayed rows together, where an image has one (`loss=code`), or of the
    prototypes' part beside the images'. Null: as published, `batch` and 1. 0 replays nothing."""
    spread: float = Field(1.0, ge=0)
    """Factor of the deviations that are replayed; 0 replays means with their weights."""

    @model_validator(mode="after")
    def _has_something_to_train(self) -> LADA:
        if not self.text_branch and not self.memory:
            raise ValueError(
                "text_branch=false and memory=false leave nothing to train: "
                "that is the method zero_shot"
            )
        if isinstance(self.epochs, tuple) and not self.epochs:
            raise ValueError("epochs: name one number, or one for each task")
        return self
