"""What the captions of a class are called in the store. Needs no torch.

A name is made of the captioner and its weights, of the class's own name, and of which images of
which set are captioned. Tasks, seeds, what is kept of the captions afterwards, and other classes
are in none of it: a new order of classes captions nothing again.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, assert_never

from PIL import Image

from raycl.backbones.content import backbone_digests
from raycl.captions.checkpoint import checkpoint_digests
from raycl.captions.phrases import BANK_REVISION
from raycl.config.backbones import Backbone
from raycl.config.captions import (
    AttributesCaptioner,
    BLIPCaptioner,
    Captioning,
    TemplateCaptioner,
)
from raycl.config.spec import Json, described, digest, identity
from raycl.drawing.fonts import DRAWING_REVISION, PRETRAINING_FONTS, font_file
from raycl.store.artefact import ArtefactSpec
from raycl.store.file_digest import file_digest

CAPTIONS_REVISION = 1
"""Raised when captioning, or what is stored of it, computes something else."""

KIND, PARTIAL = "captions", "captions-partial"


class Pictures(Protocol):
    """The pictures that are captioned; a copy in another process shows the same."""

    @property
    def identity(self) -> dict[str, Json]: ...
    @property
    def described(self) -> dict[str, Json]: ...
    @property
    def contents(self) -> tuple[str, ...]: ...
    def image(self, row: int) -> Image.Image: ...
    def place(self, row: int) -> str: ...


def uses_clip(spec: Captioning) -> bool:
    """Whether CLIP has a say: it finds phrases, or which captions are kept."""
    return spec.keep < 1 or isinstance(spec.captioner, AttributesCaptioner)


def model_digests(spec: Captioning, clip: Backbone) -> tuple[str, ...]:
    """Of all weights that decide a caption or its score."""
    seeing = backbone_digests(clip) if uses_clip(spec) else ()
    match spec.captioner:
        case TemplateCaptioner():
            return seeing
        case AttributesCaptioner():
            fonts = [file_digest(font_file(name)) for name in PRETRAINING_FONTS]
            pillow = importlib.metadata.version("pillow")
            return (*seeing, digest([BANK_REVISION, DRAWING_REVISION, fonts, pillow]))
        case BLIPCaptioner(model=model):
            return (*seeing, *checkpoint_digests(model))
        case _:
            assert_never(spec.captioner)


def class_artefact(
    spec: Captioning,
    clip: Backbone,
    models: tuple[str, ...],
    images: Pictures,
    name: str,
    rows: Sequence[int],
) -> ArtefactSpec:
    """The captions of these images of a class; `models` are what `model_digests` gave."""
    compared = spec.keep < 1
    named: dict[str, Json] = {"class": name, "rows": list(rows), "compared": compared}
    if uses_clip(spec):
        named["clip"] = {"precision": clip.precision, "batch": clip.batch}
    return ArtefactSpec(
        kind=KIND,
        name=f"{spec.captioner.kind}-{name}",
        identity={"captioner": identity(spec.captioner), "images": images.identity, **named},
        described={"captioner": described(spec.captioner), "images": images.described, **named},
        revision=CAPTIONS_REVISION,
        parents=(*images.contents, *models),
    )


def unfinished(artefact: ArtefactSpec) -> ArtefactSpec:
    """Where a class that takes long keeps the captions made so far."""
    return replace(artefact, kind=PARTIAL)
