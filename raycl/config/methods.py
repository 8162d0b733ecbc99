"""The options of every method: one frozen spec per method, told apart by `kind`.

A default here is part of what is measured: changing one needs a raised `revision`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from raycl.config.autoseed import AutoSeed
from raycl.config.captions import Captioning
from raycl.config.clts import CLTS
from raycl.config.dmc import DMC, DMCOT
from raycl.config.generators import GeneratorSpec, Precision, RealVectors, VAEGenerator
from raycl.config.lada import LADA
from raycl.config.rivals import (
    RAIL,
    RAPF,
    SLCA,
    FeCAM,
    LinearProbe,
    RanPAC,
    TipAdapter,
    WiSEFT,
)
from raycl.config.spec import NotIdentity, Spec, as_json
from raycl.config.synthesis import Synthesis


class Align(Spec):
    """How keys are trained: AdamW at a constant rate, fresh for every task."""

    lr: float = Field(1e-3, gt=0)
    epochs: int = Field(30, ge=1)
    batch: int = Field(128, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    precision: Precision = "fp32"
    """Of the matrix products that make the keys; parameters and logits always are fp32."""


class ZeroShot(Spec):
    """The backbone as it is: the nearest text vector. Learns nothing."""

    kind: Literal["zero_shot"] = "zero_shot"


Unseen = Literal["none", "gate"]
"""How a head that knows only seen classes meets the others: not at all, or by a gate, the
zero-shot argmax over the union, which decides whether the class is an unseen one."""


class NCM(Spec):
    """Nearest class mean of the normalised image vectors."""

    kind: Literal["ncm"] = "ncm"
    unseen: Unseen = "none"


class SLDA(Spec):
    """Streaming linear discriminant analysis with one shared covariance."""

    kind: Literal["slda"] = "slda"
    shrinkage: float = Field(0.1, ge=0, le=1)
    """Share of the isotropic covariance of the same trace that is mixed in."""
    text: float = Field(0.0, ge=0)
    """Weight of the zero-shot scores beside the discriminants; 1 takes them for a prior."""
    unseen: Unseen = "none"


class ProtoFusion(Spec):
    """Training-free keys norm((1 - w) · text + w · class mean)."""

    kind: Literal["proto_fusion"] = "proto_fusion"
    weight: float | None = Field(None, ge=0, le=1)
    """Weight of the class mean; null lets the validation split choose."""
    unseen: Unseen = "gate"


class ResidualPrompt(Spec):
    """A residual on each class's text vector; needs no text tower."""

    kind: Literal["residual"] = "residual"


class TokenPrompt(Spec):
    """Soft tokens before the class name, through the backbone's own text tower.

    Begin with align.lr=0.01, ten times the default; published rates are 0.01 to 0.05.
    """

    revision: ClassVar[int] = 3
    kind: Literal["tokens"] = "tokens"
    tokens: int = Field(1, ge=1)
    shared: bool = False
    """One context for all classes, rather than one for each."""
    init: str | None = None
    """Words that the tokens start from, as many as there are; null: N(0, 0.02²)."""


PromptSpec = Annotated[ResidualPrompt | TokenPrompt, Field(discriminator="kind")]


class Finetune(Spec):
    """Trained keys, a residual on each class's text vector or soft prompts, without replay."""

    kind: Literal["finetune"] = "finetune"
    loss: Literal["seen", "local"] = "seen"
    """Cross-entropy over all classes seen so far, or over the current task's only."""
    align: Align = Align()
    prompt: PromptSpec = ResidualPrompt()


class Joint(Spec):
    """The same keys, retrained at each stage on all data so far: an upper line."""

    kind: Literal["joint"] = "joint"
    align: Align = Align()
    prompt: PromptSpec = ResidualPrompt()


class MappedTokens(TokenPrompt):
    """CGIL's prompt: V of each class, then H = g(text vector), before the class name."""

    tokens: int = Field(1, ge=0)
    """Of V; with 0 there is H alone."""
    mapped: bool = True
    """Whether there is an H; without, V alone."""
    orthogonality: float = Field(0.0, ge=0)
    """Weight of the mean of (V Vᵀ - I)² in the loss."""

    @model_validator(mode="after")
    def _has_something_to_train(self) -> MappedTokens:
        if not self.tokens and not self.mapped:
            raise ValueError("tokens=0 and mapped=false leave nothing to train")
        if self.orthogonality and (self.shared or not self.tokens):
            raise ValueError("orthogonality is between classes' own tokens, and there are none")
        return self


class MappedResidual(Spec):
    """CGIL without a text tower: text vector + r of each class, and + h(text vector) if asked."""

    kind: Literal["residual"] = "residual"
    own: bool = True
    """Whether there is an r."""
    mapped: bool = False
    """Whether there is an h. It has 10⁶ weights to a few hundred text vectors: on Cars it
    costs 15 points, at every rate tried."""
    shared: bool = False
    """One r for all classes."""

    @model_validator(mode="after")
    def _has_something_to_train(self) -> MappedResidual:
        if not self.own and not self.mapped:
            raise ValueError("own=false and mapped=false leave nothing to train")
        return self


MappedPrompt = Annotated[MappedTokens | MappedResidual, Field(discriminator="kind")]

PROMPTS: tuple[type[Spec], ...] = (ResidualPrompt, TokenPrompt, MappedTokens, MappedResidual)


class AlignPrompts(Spec):
    """As `Align`, with a rate that depends on the prompt, and the published epochs.

    The published values vary by data set: lr 0.01 to 0.05, of which 0.03 is the middle, and
    60 epochs, but 150 on EuroSAT and ISIC.
    """

    lr: float | None = Field(None, gt=0)
    """Null: 0.03 for tokens, 3e-4 for a residual."""
    epochs: int = Field(60, ge=1)
    batch: int = Field(128, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    precision: Precision = "fp32"

    def at_rate(self, lr: float) -> Align:
        """With this rate where the spec names none."""
        return Align(**{**self.model_dump(), "lr": self.lr or lr})


class AlignedReplay(Spec):
    """Keys aligned at the end of each task on vectors drawn from every class seen so far."""

    revision: ClassVar[int] = 3
    per_class: int = Field(256, ge=1)
    """Vectors drawn of each class, anew for every epoch."""
    input: Literal["raw", "unit"] = "raw"
    """Vectors as the backbone gave them, as published, or scaled to length one first."""
    train: Literal["all", "current"] = "all"
    """Whose own part of the prompt moves: that of all classes seen, or the task's only."""
    negatives: Literal["seen", "all"] = "seen"
    """What a sample is told apart from: the classes seen, as published, or also the text
    vectors of those to come. Of the first, only differences between trained keys matter; all
    of them drift away from the samples, and lose to unseen classes where both are ranked."""
    align: AlignPrompts = AlignPrompts()
    prompt: MappedPrompt | None = None
    """Null: tokens where the backbone has a text tower, residual where vectors are given."""
    parity: bool = False
    """Zero-shot keys of unseen classes at their raw length beside unit ones, as published."""


class CGIL(AlignedReplay):
    """A generator per class, and prompts aligned on what the generators draw."""

    kind: Literal["cgil"] = "cgil"
    generator: GeneratorSpec = VAEGenerator()


class RealReplay(AlignedReplay):
    """CGIL with real vectors in the generators' place: the line that they are measured by."""

    kind: Literal["real_replay"] = "real_replay"
    memory: RealVectors = RealVectors()


class UserMethod(Spec):
    """A method class of the user's own, from a file or an importable module.

    Keyed by the digest of its source, not by where it lies.
    """

    kind: Literal["python"] = "python"
    target: str = NotIdentity(...)
    """`path/to/mine.py`, `path/to/mine.py:Class` or `module:Class`."""
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("target")
    @classmethod
    def _not_empty(cls, target: str) -> str:
        if not target.strip():
            raise ValueError("name a file or module:Class")
        return target

    @field_validator("options")
    @classmethod
    def _can_be_a_key(cls, options: dict[str, Any]) -> dict[str, Any]:
        try:
            as_json(options)
        except TypeError as error:
            raise ValueError(str(error)) from error
        return options


MethodSpec = Annotated[
    ZeroShot
    | NCM
    | SLDA
    | ProtoFusion
    | Finetune
    | Joint
    | RealReplay
    | CGIL
    | UserMethod
    | CLTS
    | LADA
    | DMC
    | DMCOT
    | AutoSeed
    | RAIL
    | RanPAC
    | TipAdapter
    | LinearProbe
    | FeCAM
    | SLCA
    | WiSEFT
    | RAPF,
    Field(discriminator="kind"),
]

BUILT_IN: tuple[type[Spec], ...] = (
    ZeroShot,
    NCM,
    SLDA,
    ProtoFusion,
    Finetune,
    Joint,
    RealReplay,
    CGIL,
    CLTS,
    LADA,
    DMC,
    DMCOT,
    AutoSeed,
    RAIL,
    RanPAC,
    TipAdapter,
    LinearProbe,
    FeCAM,
    SLCA,
    WiSEFT,
    RAPF,
)


def models_of(method: MethodSpec) -> tuple[Captioning | Synthesis, ...]:
    """The models that a method works with besides the backbone."""
    return method.models if isinstance(method, CLTS) else ()


def kind_of(spec_type: type[Spec]) -> str:
    """The tag by which a spec is named in configs and on the command line."""
    return str(spec_type.model_fields["kind"].default)


def parse_method(text: str) -> dict[str, Any]:
    """What a user may write for a method on the command line."""
    if text.startswith("python:"):
        return {"kind": "python", "target": text.removeprefix("python:")}
    if text.endswith(".py") or ".py:" in text:
        return {"kind": "python", "target": text}
    return {"kind": text}
