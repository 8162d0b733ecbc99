"""What features and text vectors are called in the store. Needs no torch, opens no image.

A name is made of what the images are (their stream's digests), of the backbone and its
weights. Tasks, shots, seeds and methods are in none of them, so all runs on one source
share one embedding; nor is the template in that of images, or the stream in that of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raycl.backbones.content import backbone_digests
from raycl.config.backbones import Backbone
from raycl.config.spec import Json, described, digest, identity
from raycl.config.streams import ImageFiles, ImageStream, images_alone
from raycl.store.artefact import ArtefactSpec
from raycl.streams.content import content_digests

EMBEDDING_REVISION = 1
"""Raised when decoding, preprocessing, batching or chunking computes something else."""

CHUNK = 512
"""About how many images a unit of work holds: what a kill costs a worker at most."""


@dataclass(frozen=True)
class EmbeddingIdentity:
    """The names of all that one stream's embedding by one backbone stores."""

    spec: ImageStream
    backbone: Backbone
    contents: tuple[str, ...]
    weights: tuple[str, ...]

    @classmethod
    def of(cls, spec: ImageStream, backbone: Backbone) -> EmbeddingIdentity:
        """Reads the digests of images and weights; both must exist."""
        spec = images_alone(spec)
        return cls(spec, backbone, content_digests(spec), backbone_digests(backbone))

    @property
    def features(self) -> ArtefactSpec:
        """The vectors of all images that can be decoded."""
        return self._images("features", self.spec, {})

    def chunk(self, first: int, last: int) -> ArtefactSpec:
        """The vectors of the rows from `first` up to `last`; the same one whether corrupt
        images are then refused or left out."""
        spec = self.spec
        if isinstance(spec, ImageFiles):
            spec = spec.model_copy(update={"corrupt": "refuse"})
        return self._images("features-chunk", spec, {"rows": [first, last]})

    @property
    def chunk_rows(self) -> int:
        """Images in a chunk: whole passes of the encoder, so that a row's place in its pass
        does not depend on chunks."""
        return self.backbone.batch * max(1, CHUNK // self.backbone.batch)

    def _images(self, kind: str, spec: ImageStream, part: dict[str, Json]) -> ArtefactSpec:
        seeing = blind_to_text(self.backbone)
        return ArtefactSpec(
            kind=kind,
            name=spec.title,
            identity={"images": identity(spec), "backbone": identity(seeing), **part},
            described={"images": described(spec), "backbone": described(seeing), **part},
            revision=EMBEDDING_REVISION,
            parents=self.contents + self.weights,
        )


def text_spec(
    class_names: Sequence[str], backbone: Backbone, weights: tuple[str, ...]
) -> ArtefactSpec:
    """The text vectors of these names, in this order."""
    names: dict[str, Json] = {"class_names": digest(list(class_names))}
    speaking = backbone.model_copy(update={"logit_scale": None})
    return ArtefactSpec(
        kind="text",
        name=f"{len(class_names)}-names",
        identity={"backbone": identity(speaking), **names},
        described={"backbone": described(speaking), **names},
        revision=EMBEDDING_REVISION,
        parents=weights,
    )


def blind_to_text(backbone: Backbone) -> Backbone:
    """The backbone as far as it changes image vectors."""
    plain = Backbone()
    kept = {"template": plain.template, "logit_scale": plain.logit_scale}
    return backbone.model_copy(update=kept)
