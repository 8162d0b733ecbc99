"""The options of DMC and DMC-OT: two stages, what calibrates between them, and prompts.

Of the paper only what it does could be read; the values are ours, and all of them options.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from raycl.config.spec import Spec


class VisionStage(Spec):
    """How the visual encoder moves: Adam at a cosine rate, on the task's own classes."""

    adapter: Literal["lora", "residual"] | None = None
    """`lora` on q and v of the attention inside the visual tower; `residual`: a low-rank map
    behind it, for streams of vectors. Null: lora where there are images, residual elsewhere."""
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    """The map is multiplied by alpha / rank."""
    lr: float = Field(1e-3, gt=0)
    epochs: int = Field(3, ge=0)
    """With 0 the encoder stays as it is. Where both stages are one, those of text count."""
    batch: int = Field(128, ge=1)
    template: str = "a good photo of a {}."
    """The frozen text that images are trained against; given vectors bring their own."""


class TextStage(Spec):
    """How prompts are trained: AdamW at a cosine rate, on all classes seen."""

    tokens: int = Field(16, ge=1)
    """Of the context that all classes share, where there is one."""
    lr: float | None = Field(None, gt=0)
    """Null: 2e-3 for tokens, 3e-4 where vectors are given, and a key is text plus a residual."""
    epochs: int = Field(5, ge=1)
    batch: int = Field(128, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(1.0, gt=0)
    """The longest gradient; null does not clip."""
    per_class: int = Field(256, ge=1)
    """Vectors of each class in an epoch: a class of the task gives its real ones first, and all
    else is drawn from the classes' Gaussians."""


Order = Literal["vision_text", "text_vision", "coupled"]


class TwoStages(Spec):
    """What DMC and DMC-OT share."""

    revision: ClassVar[int] = 2
    vision: VisionStage = VisionStage()
    text: TextStage = TextStage()
    order: Order = "vision_text"
    """The published order; its reverse; or both at once, the images' loss and that of replayed
    vectors summed."""

    @model_validator(mode="after")
    def _has_both(self) -> TwoStages:
        if self.order == "coupled" and not self.vision.epochs:
            raise ValueError("order=coupled trains both at once, but vision.epochs=0")
        return self


class NoCalibration(Spec):
    """Old statistics stay as they were."""

    kind: Literal["none"] = "none"


class MeanShift(Spec):
    """Every old mean moves as the mean of the current vectors did."""

    kind: Literal["mean_shift"] = "mean_shift"


class SemanticDrift(Spec):
    """Every old mean moves as the current vectors near it did (SDC, Yu et al. 2020)."""

    kind: Literal["sdc"] = "sdc"
    bandwidth: float = Field(0.3, gt=0)
    """Of the Gaussian kernel, between unit vectors."""


class MongeWithin(Spec):
    """The optimal map between Gaussians of the current vectors, spread within classes."""

    kind: Literal["monge_within"] = "monge_within"


class MongePooled(Spec):
    """The same with their whole spread, that between classes included."""

    kind: Literal["monge_pooled"] = "monge_pooled"


class MongeClasswise(Spec):
    """One map for each current class; an old class takes the mixture of them that Sinkhorn's
    plan gives it, at the cost BW² between classes."""

    kind: Literal["monge_classwise"] = "monge_classwise"
    entropy: float = Field(0.1, gt=0)
    """Of the plan, as a share of the mean cost."""


class RidgePaired(Spec):
    """The linear map between a vector before and after, by least squares. No transport: it uses
    the pairing, which the others do not."""

    kind: Literal["ridge_paired"] = "ridge_paired"
    strength: float = Field(3.0, gt=0)
    """Of the pull towards the identity, as a share of the mean variance times the samples."""


CalibratorSpec = Annotated[
    NoCalibration
    | MeanShift
    | SemanticDrift
    | MongeWithin
    | MongePooled
    | MongeClasswise
    | RidgePaired,
    Field(discriminator="kind"),
]

CALIBRATORS: tuple[type[Spec], ...] = (
    NoCalibration,
    MeanShift,
    SemanticDrift,
    MongeWithin,
    MongePooled,
    MongeClasswise,
    RidgePaired,
)


class DMC(TwoStages):
    """Vision, then text, each against the other frozen; Gaussians of old classes replayed."""

    kind: Literal["dmc"] = "dmc"


class DMCOT(TwoStages):
    """DMC with statistics carried along as the encoder moves, and prompts of each task."""

    kind: Literal["dmc_ot"] = "dmc_ot"
    calibrator: CalibratorSpec = MongeWithin()
    task_prompts: bool = True
    """A context of each class and one of each task, trained once; else DMC's one context."""
    class_tokens: int = Field(12, ge=1)
    task_tokens: int = Field(12, ge=0)
    separability: float = Field(0.1, ge=0)
    """Weight of the hinge that keeps a new key from coming nearer to old keys than its text."""
