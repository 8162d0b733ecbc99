"""The options of the rivals that a new method is measured by, mostly in closed form.

Where a published constant depends on the size of something, what it becomes here is said.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raycl.config.generators import GaussianGenerator, GeneratorSpec
from raycl.config.spec import Spec

UnseenOrGate = Literal["none", "gate"]
"""As `Unseen` of the other methods."""


class RAIL(Spec):
    """Ridge regression on random features, or on a kernel, mixed with the zero-shot scores."""

    kind: Literal["rail"] = "rail"
    form: Literal["primal", "dual"] = "primal"
    """Random features of a fixed number, or a Gaussian kernel over every vector so far."""
    hidden: int = Field(4096, ge=1)
    """Random features (primal). Published: 15,000, whose state is 0.9 GB."""
    gamma: float = Field(0.1, gt=0)
    """Of the kernel exp(-γ |x - x'|²) (dual)."""
    most_samples: int = Field(10_000, ge=1)
    """More than these are refused (dual): a kernel matrix of 0.8 GB."""
    ridge: float | None = Field(None, gt=0)
    """Null: 0.02 (primal), which is the published 0.1 for features of length one, or 0.001."""
    fusion: Literal["text", "none"] = "text"
    weight: float | None = Field(0.9, gt=0, le=1)
    """Share of the regression in a mix with the text; null lets the validation split choose."""
    unseen: UnseenOrGate = "gate"


class RanPAC(Spec):
    """Ridge regression on random features, its λ chosen on held-out samples."""

    kind: Literal["ranpac"] = "ranpac"
    hidden: int = Field(4096, ge=1)
    """Random features. Published: 10,000, whose state is 0.4 GB."""
    ridge: float | None = Field(None, gt=0)
    """Null lets the validation split choose, by squared error as published."""
    fusion: Literal["text", "none"] = "none"
    """Whether the zero-shot scores are mixed in, which is not published."""
    weight: float | None = Field(None, gt=0, le=1)
    """Share of the regression in such a mix; null lets the validation split choose."""
    unseen: UnseenOrGate = "none"


class TipAdapter(Spec):
    """A cache of training vectors beside the text: Tip-Adapter, and with training -F."""

    kind: Literal["tip_adapter"] = "tip_adapter"
    per_class: int | None = Field(None, ge=1)
    """Vectors cached of each class; null keeps all."""
    train: Literal["none", "current", "all"] = "none"
    """Whose cached keys move (-F): nobody's; the task's, among its own classes; or those of
    all classes seen, by all cached vectors, which are then kept beside them."""
    alpha: float | None = Field(None, gt=0)
    """Weight of the cache beside the scaled cosines; null lets the validation split choose."""
    beta: float | None = Field(None, gt=0)
    """Sharpness of the cache; null lets the validation split choose."""
    lr: float = Field(1e-3, gt=0)
    epochs: int = Field(20, ge=1)
    batch: int = Field(256, ge=1)
    unseen: UnseenOrGate = "gate"


class LinearProbe(Spec):
    """Logistic regression on frozen vectors, without text."""

    kind: Literal["linear_probe"] = "linear_probe"
    data: Literal["all", "task"] = "all"
    """All so far, every vector kept: an upper line; or the task's, among its own classes."""
    lr: float = Field(1e-3, gt=0)
    epochs: int = Field(30, ge=1)
    batch: int = Field(128, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    unseen: UnseenOrGate = "none"


class FeCAM(Spec):
    """Mahalanobis distances, each class with its own shrunk and normalised covariance."""

    kind: Literal["fecam"] = "fecam"
    shrinkage: float = Field(1.0, gt=0)
    """How many times its mean variance is added to a class's covariance; published: 1 for
    many samples, 100 for few."""
    normalise: bool = True
    """Correlations in place of covariances, so that wide classes do not draw everything."""
    unseen: UnseenOrGate = "none"


class SLCA(Spec):
    """A linear classifier per task, aligned on samples of one Gaussian per class."""

    kind: Literal["slca"] = "slca"
    generator: GeneratorSpec = GaussianGenerator(covariance="full")
    per_class: int = Field(256, ge=1)
    """Vectors drawn of each class, anew for every epoch."""
    lr: float = Field(1e-3, gt=0)
    epochs: int = Field(20, ge=1)
    """Of the task's own classifier."""
    align_epochs: int = Field(5, ge=1)
    batch: int = Field(128, ge=1)
    weight_decay: float = Field(5e-4, ge=0)
    logit_norm: float | None = Field(0.1, gt=0)
    """Temperature of logits of equal norm while aligning; null aligns plain logits."""
    unseen: UnseenOrGate = "none"


class WiSEFT(Spec):
    """Keys between the zero-shot ones and those trained on the task."""

    kind: Literal["wise_ft"] = "wise_ft"
    weight: float | None = Field(None, ge=0, le=1)
    """Of the trained key; null lets the validation split choose."""
    loss: Literal["seen", "local"] = "local"
    lr: float = Field(1e-3, gt=0)
    epochs: int = Field(30, ge=1)
    batch: int = Field(128, ge=1)


class RAPF(Spec):
    """One linear adapter for all classes, on Gaussian replay, fused with its past self."""

    kind: Literal["rapf"] = "rapf"
    generator: GeneratorSpec = GaussianGenerator(covariance="full")
    per_class: int = Field(20, ge=1)
    """Vectors drawn of each old class, anew for every epoch."""
    start: Literal["identity", "random"] = "identity"
    """Published: random, from which few samples do not find back."""
    threshold: float = Field(0.65, ge=0)
    """An old and a new class whose unit text vectors are nearer than this are kept apart."""
    margin: float = Field(0.1, ge=0)
    separate: bool = True
    """The hinge loss between such classes."""
    fuse: bool = True
    """Whether parameters are fused with those before the task."""
    keep_bias: float = Field(0.7, ge=0, le=1)
    """Least share of a new parameter in the fusion; the one that moved most is all new."""
    lr: float = Field(1e-3, gt=0)
    epochs: int = Field(15, ge=1)
    batch: int = Field(64, ge=1)
