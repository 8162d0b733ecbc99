"""What stands for a class's vectors when the vectors are gone: one frozen spec per kind.

Whatever changes numbers is here. How many classes are fitted side by side, and on how many
workers, does not change them and so is not. A default is part of what is measured: changing
one needs a raised `revision`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from raycl.config.spec import Spec
from raycl.errors import ConfigError

Weights = Literal["fp32", "fp16"]
"""How the state of a generator is kept; its means and scales always are fp32."""
Precision = Literal["fp32", "bf16"]
"""Of the matrix products while a network is fitted; the parameters always are fp32."""


class MeanGenerator(Spec):
    """The class mean, again and again: the line that a spread has to beat."""

    kind: Literal["mean"] = "mean"


class GaussianGenerator(Spec):
    """One Gaussian per class."""

    kind: Literal["gaussian"] = "gaussian"
    covariance: Literal["diag", "full"] = "diag"
    shrinkage: float | None = Field(None, ge=0, le=1)
    """Share of the diagonal in a full covariance. Null: Ledoit and Wolf's estimate."""
    weights: Weights = "fp32"


class GMMGenerator(Spec):
    """A mixture of Gaussians with diagonal covariances, by EM."""

    kind: Literal["gmm"] = "gmm"
    components: int = Field(5, ge=1)
    iterations: int = Field(500, ge=1)
    tolerance: float = Field(1e-3, gt=0)
    """EM ends when the mean log-likelihood of a vector gains less."""
    floor: float = Field(0.1, gt=0)
    """Least variance of a component, in units of the class's own."""
    parity: bool = False
    """The published density, whose variances are square roots of those meant."""
    weights: Weights = "fp32"


class VAEGenerator(Spec):
    """A variational auto-encoder per class, of which the decoder is kept."""

    revision: ClassVar[int] = 2
    kind: Literal["vae"] = "vae"
    latent: int = Field(256, ge=1)
    hidden: int = Field(512, ge=1)
    epochs: int = Field(500, ge=1)
    batch: int = Field(64, ge=2)
    lr: float = Field(2e-4, gt=0)
    output_noise: Literal["none", "unit", "residual"] = "none"
    """What is added to the decoder's output: nothing, as published; the unit variance that
    the likelihood assumes; or what the class's mean and variances still lack."""
    parity: bool = False
    """exp(log σ²), not its root, as the posterior's standard deviation, as published."""
    precision: Precision = "fp32"
    weights: Weights = "fp32"


class DiffusionGenerator(Spec):
    """A small denoising diffusion model per class."""

    kind: Literal["diffusion"] = "diffusion"
    hidden: int = Field(256, ge=4)
    layers: int = Field(5, ge=1)
    noise_steps: int = Field(32, ge=2)
    steps: int = Field(500, ge=1)
    """Optimiser steps, not epochs."""
    batch: int = Field(64, ge=2)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    parity: bool = False
    """Noise as a product of two normals while training, as published."""
    precision: Precision = "fp32"
    weights: Weights = "fp32"


class RealVectors(Spec):
    """Not a generator: k real vectors per class, the line that every generator is measured by."""

    kind: Literal["real"] = "real"
    per_class: int | None = Field(None, ge=1)
    """Null keeps all."""
    weights: Weights = "fp16"


class SharedVAEGenerator(Spec):
    """One class-conditional VAE for all the classes it is fitted to.

    Its classes share a decoder, so the result of a class depends on the others, and it is one
    artefact, not one per class.
    """

    kind: Literal["shared_vae"] = "shared_vae"
    latent: int = Field(256, ge=1)
    hidden: int = Field(512, ge=1)
    class_width: int = Field(64, ge=1)
    """Dimensions of the learnt vector that tells the networks which class it is."""
    epochs: int = Field(100, ge=1)
    batch: int = Field(128, ge=2)
    lr: float = Field(1e-3, gt=0)
    output_noise: Literal["none", "unit", "residual"] = "residual"
    parity: bool = False
    precision: Precision = "fp32"
    weights: Weights = "fp32"


GeneratorSpec = Annotated[
    MeanGenerator
    | GaussianGenerator
    | GMMGenerator
    | VAEGenerator
    | DiffusionGenerator
    | RealVectors
    | SharedVAEGenerator,
    Field(discriminator="kind"),
]

GENERATORS: tuple[type[Spec], ...] = (
    MeanGenerator,
    GaussianGenerator,
    GMMGenerator,
    VAEGenerator,
    DiffusionGenerator,
    RealVectors,
    SharedVAEGenerator,
)


def parse_generator(text: str) -> dict[str, Any]:
    """What a user may write for a generator: `vae`, `gaussian:full`, `gmm:8`, `real:16`."""
    kind, colon, rest = text.partition(":")
    if not colon:
        return {"kind": text}
    match kind:
        case "gaussian":
            return {"kind": kind, "covariance": rest}
        case "gmm":
            return {"kind": kind, "components": _count(text, rest)}
        case "real":
            return {"kind": kind, "per_class": _count(text, rest)}
    raise ConfigError(
        f"{kind!r} takes nothing after a colon",
        got=text,
        do="write e.g. vae, gaussian:full, gmm:8 or real:16; other options have names",
    )


def _count(text: str, number: str) -> int:
    if not (number.isascii() and number.isdecimal()):
        raise ConfigError("a whole number must follow the colon", got=text, do="e.g. real:16")
    return int(number)
