"""The images of a stream, opened where they are used: what travels is the spec alone.

Guarantees: a copy in another process shows the same pictures, if the same files are there; what
names the pictures is their set and its content, never tasks, shots or seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from raycl.config.spec import Json, described, identity
from raycl.config.streams import ImageFiles, ImageStream, images_alone
from raycl.streams.content import content_digests
from raycl.streams.image_set import ImageSet
from raycl.streams.images import read_images


@dataclass(frozen=True)
class OpenedImages:
    """The pictures of an image stream, by row of its set."""

    spec: ImageStream

    @cached_property
    def images(self) -> ImageSet:
        return read_images(self.spec)

    def image(self, row: int) -> Image.Image:
        """The RGB picture as the data set has it."""
        return self.images.image(row)

    def place(self, row: int) -> str:
        """A path or a description, for messages."""
        return self.images.place(row)

    @cached_property
    def contents(self) -> tuple[str, ...]:
        """Digests of the data."""
        return content_digests(self.spec)

    @property
    def identity(self) -> dict[str, Json]:
        """What names the set in a key, besides its contents."""
        return identity(self._bare)

    @property
    def described(self) -> dict[str, Json]:
        """The same with defaults written out."""
        return described(self._bare)

    @property
    def _bare(self) -> ImageStream:
        spec = images_alone(self.spec)
        if isinstance(spec, ImageFiles):
            spec = spec.model_copy(update={"corrupt": "refuse"})
        return spec

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenedImages, (self.spec,)
