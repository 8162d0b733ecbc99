"""What a captioner is: pictures of a class in, one sentence for each out.

Guarantees: a picture's caption depends on the picture and its class alone, not on what is
captioned beside it; captioners never draw at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

import torch
from PIL import Image

from raycl.config.backbones import Backbone
from raycl.config.captions import (
    AttributesCaptioner,
    BLIPCaptioner,
    CaptionerSpec,
    TemplateCaptioner,
)


@dataclass(frozen=True)
class Said:
    """A sentence, and how sure its captioner is."""

    text: str
    score: float | None = None


class Captioner(Protocol):
    """Says what is in pictures."""

    batch: int
    """Pictures that it wants at a time."""

    def say(self, name: str, images: Sequence[Image.Image]) -> list[Said]:
        """A caption for each of at most `batch` pictures of the class of this name."""


class Template:
    """The same words for every picture of a class."""

    batch = 256

    def __init__(self, spec: TemplateCaptioner) -> None:
        self.spec = spec

    def say(self, name: str, images: Sequence[Image.Image]) -> list[Said]:
        return [Said(self.spec.template.format(name)) for _ in images]


def build_captioner(spec: CaptionerSpec, clip: Backbone, device: torch.device) -> Captioner:
    """The captioner of a spec; `clip` is the one that phrases are found by."""
    match spec:
        case TemplateCaptioner():
            return Template(spec)
        case AttributesCaptioner():
            from raycl.backbones.encoder import load_encoder
            from raycl.captions.attributes import Attributes

            return Attributes(spec, load_encoder(clip, device))
        case BLIPCaptioner():
            from raycl.captions.blip import BLIP

            return BLIP(spec, device)
        case _:
            assert_never(spec)
