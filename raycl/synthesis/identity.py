"""What a chunk of images is called in the store. Needs no torch.

Its name is made of the model's content, of the spec and of its own prompts and seeds. So the
same prompts find their images whatever else is asked for with them, and a model that was moved
or copied finds them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raycl.backbones.content import backbone_digests
from raycl.config.backbones import Backbone
from raycl.config.spec import Json, described, digest, identity
from raycl.config.synthesis import Synthesis
from raycl.store.artefact import ArtefactSpec
from raycl.synthesis.models import model_digest
from raycl.synthesis.prompts import Prompt

PAINTING_REVISION = 1
"""Raised when a pixel, or what is stored of it, is computed otherwise."""
KIND, FEATURES_KIND = "images", "image-features"
IMAGES, FEATURES, NOTES = "images.arrow", "features.arrow", "notes.json"


@dataclass(frozen=True)
class Seeing:
    """What looks at images in the process that paints them, so that they need not travel."""

    backbone: Backbone
    side: int | None = None
    """Images are first scaled to so many pixels a side, as those of a data set are."""

    @property
    def encoder(self) -> Backbone:
        """What of the backbone matters to an image."""
        own = self.backbone
        return Backbone(name=own.name, precision=own.precision, batch=own.batch)


@dataclass(frozen=True, repr=False)
class Chunk:
    """Some prompts, where they stand among all, and the name of their images: a work item."""

    artefact: ArtefactSpec
    prompts: tuple[Prompt, ...]
    first: int

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        return f"images {self.first + 1} to {self.first + len(self)}"


def chunks_of(
    prompts: Sequence[Prompt], spec: Synthesis, seeing: Seeing | None = None
) -> list[Chunk]:
    """The prompts in their order, a pass each."""
    contents = [model_digest(spec)]
    if seeing is not None:
        contents += backbone_digests(seeing.backbone)
    size = spec.chunk
    cut = [(first, tuple(prompts[first : first + size])) for first in range(0, len(prompts), size)]
    return [Chunk(_artefact(own, spec, seeing, contents), own, first) for first, own in cut]


def _artefact(
    prompts: Sequence[Prompt], spec: Synthesis, seeing: Seeing | None, contents: Sequence[str]
) -> ArtefactSpec:
    asked = digest([[prompt.text, prompt.seed] for prompt in prompts])
    named: dict[str, Json] = {"synthesis": _nameless(identity(spec)), "images": len(prompts)}
    shown: dict[str, Json] = {"synthesis": _nameless(described(spec)), "images": len(prompts)}
    if seeing is not None:
        named |= {"backbone": identity(seeing.encoder), "side": seeing.side}
        shown |= {"backbone": described(seeing.encoder), "side": seeing.side}
    return ArtefactSpec(
        kind=KIND if seeing is None else FEATURES_KIND,
        name=prompts[0].text,
        identity=named,
        described=shown,
        revision=PAINTING_REVISION,
        parents=(*contents, asked),
    )


def _nameless(spec: dict[str, Json]) -> dict[str, Json]:
    """Without the model's name: its content is a parent."""
    return {name: value for name, value in spec.items() if name != "model"}
