"""The options of every method: one frozen spec per method, told apart by `kind`.

A default here is part of what is measured: changing one needs a raised `revision`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator

from raycl.config.spec import NotIdentity, Spec, as_json


class Align(Spec):
    """How keys are trained: AdamW at a constant rate, fresh for every task."""

    lr: float = Field(1e-3, gt=0)
    epochs: int = Field(30, ge=1)
    batch: int = Field(128, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
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


PROMPTS: tuple[type[Spec], ...] = (ResidualPrompt, TokenPrompt)


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
    ZeroShot | NCM | SLDA | ProtoFusion | Finetune | Joint | UserMethod,
    Field(discriminator="kind"),
]

BUILT_IN: tuple[type[Spec], ...] = (
    ZeroShot,
    NCM,
    SLDA,
    ProtoFusion,
    Finetune,
    Joint,
)


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
