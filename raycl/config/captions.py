"""The options of captioners, and of the captions that stand for a class's images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from raycl.config.spec import NotIdentity, Spec

Slot = Literal["ink", "ground", "stroke", "slant", "size"]
"""What the built-in phrase bank can say of a picture, besides what it shows."""

SLOTS: tuple[Slot, ...] = ("ink", "ground", "stroke", "slant", "size")


class TemplateCaptioner(Spec):
    """The same words for every image of a class."""

    kind: Literal["template"] = "template"
    template: str = "a picture of a {}"

    @field_validator("template")
    @classmethod
    def _has_one_place(cls, template: str) -> str:
        if template.count("{}") != 1 or template.count("{") != 1 or template.count("}") != 1:
            raise ValueError("a template holds {} once, where the class name goes")
        return template


class AttributesCaptioner(Spec):
    """Phrases that CLIP finds in the picture: of each slot the likeliest, if it is likely enough.

    Ink and ground are found by their text; stroke, slant and size by pictures drawn to show
    them, since CLIP need not know the words. Phrases of your own are found by their text.
    """

    kind: Literal["attributes"] = "attributes"
    slots: tuple[Slot, ...] = SLOTS
    """Of the bank that ships."""
    phrases: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Slots of your own, said behind the name: `{place: [in a field, on water]}`."""
    certainty: float = Field(0.4, ge=0, le=1)
    """A phrase less probable than this, among its slot's, is left unsaid."""
    exemplars: int = Field(192, ge=8)
    """Pictures drawn of each phrase that is found by pictures."""

    @field_validator("slots")
    @classmethod
    def _each_once(cls, slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
        if len(set(slots)) < len(slots):
            raise ValueError("a slot is named twice")
        return slots

    @field_validator("phrases")
    @classmethod
    def _can_be_told_apart(cls, phrases: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for slot, words in phrases.items():
            if slot in SLOTS:
                raise ValueError(f"the bank has a slot {slot} already; name yours otherwise")
            if len(set(words)) < 2 or not all(word.strip() for word in words):
                raise ValueError(f"the slot {slot} needs two phrases or more, none of them empty")
        return phrases


class BLIPCaptioner(Spec):
    """BLIP through transformers: a checkpoint on the hub, or a folder as transformers saves it."""

    kind: Literal["blip"] = "blip"
    model: str = NotIdentity("Salesforce/blip-image-captioning-base")
    """In no key: the digests of its files stand there for it."""
    beams: int = Field(3, ge=1)
    shortest: int = Field(5, ge=1)
    longest: int = Field(20, ge=1)
    """Tokens of a caption, the prefix included."""
    prefix: str = "a picture of"
    """How every caption begins; empty lets the model begin."""
    batch: int = Field(8, ge=1)
    """Images at a time. Passes have one fixed shape, so it can move the last bit."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    @field_validator("longest")
    @classmethod
    def _is_longest(cls, longest: int, info: Any) -> int:
        if longest < info.data.get("shortest", 1):
            raise ValueError("the longest caption is shorter than the shortest")
        return longest


CaptionerSpec = Annotated[
    TemplateCaptioner | AttributesCaptioner | BLIPCaptioner, Field(discriminator="kind")
]


class Captioning(Spec):
    """Which captions are kept of a class's images."""

    captioner: CaptionerSpec = AttributesCaptioner()
    per_class: int = Field(50, ge=1)
    """Images of each class that are captioned, drawn at random; all where there are fewer."""
    keep: float = Field(1.0, gt=0, le=1)
    """Share of a class's captions that is kept: those that CLIP finds most like their image."""
    duplicates: Literal["drop", "keep"] = "drop"
    """What becomes of a caption that another image of the class has, word for word."""


def parse_captioner(text: str) -> dict[str, Any]:
    """What a user may write for a captioner: `attributes`, `blip:FOLDER`, `template:a {}`."""
    kind, colon, rest = text.partition(":")
    if not colon:
        return {"kind": kind}
    return {"kind": kind, {"template": "template"}.get(kind, "model"): rest}
