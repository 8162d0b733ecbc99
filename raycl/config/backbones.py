"""What turns images and class names into vectors, as far as it changes numbers.

A name says where the weights come from; their digest, not their place, enters a key.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from raycl.config.spec import NotIdentity, Spec

GIVEN = "given"
TINY_CLIP = "tiny-clip"
GIVEN_LOGIT_SCALE = 100.0
"""Where CLIP's own training ends."""


class Backbone(Spec):
    """`given`, `tiny-clip`, `ViT-B-32:openai` (architecture:tag), `hf-hub:…` or `local-dir:…`."""

    revision: ClassVar[int] = 2

    name: str | None = NotIdentity(None)
    """Null: the stream's own vectors where it has them (`given`), else tiny-clip. In no key:
    the digests of weights, configuration and tokeniser stand there for it."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    batch: int = Field(64, ge=1)
    """Images in an encoder pass. Passes have one fixed shape, so it can move the last bit."""
    template: str = "a photo of a {}."
    """The prompt of every class; `{}` is its name."""
    logit_scale: float | None = Field(None, gt=0)
    """Factor on cosines before the softmax. Null: the model's own; 100 for given vectors."""

    @field_validator("template")
    @classmethod
    def _has_one_place(cls, template: str) -> str:
        if template.count("{}") != 1 or template.count("{") != 1 or template.count("}") != 1:
            raise ValueError("a template holds {} once, where the class name goes")
        return template
