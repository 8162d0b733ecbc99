"""A source of vectors from a stream of images: features, text, labels and splits together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from raycl.backbones.content import backbone_digests
from raycl.compute.pool import DEFAULT_RESOURCES, Pool, Resources
from raycl.compute.stopping import never
from raycl.config.backbones import Backbone
from raycl.config.streams import ImageStream
from raycl.embedding.features import Features, embed
from raycl.embedding.text import Text, read_text
from raycl.observe.events import Observer, nobody
from raycl.store.store import Store
from raycl.streams.images import read_images, source_of_features
from raycl.streams.source import Source


@dataclass(frozen=True)
class Embedded:
    """A source and the stored parts that it was put together from."""

    source: Source
    features: Features
    text: Text
    weights: tuple[str, ...]
    """Digests of the backbone."""

    @property
    def keys(self) -> tuple[str, ...]:
        return self.features.key, self.text.key


def embedded(
    spec: ImageStream,
    backbone: Backbone,
    *,
    store: Store,
    pool: Pool,
    observer: Observer = nobody,
    device: str = "cpu",
    text_device: str = "cpu",
    resources: Resources = DEFAULT_RESOURCES,
    stopping: Callable[[], bool] = never,
) -> Embedded:
    """The checked source of a stream of images, and what it is made of. `device` is the
    workers'; text is encoded in this process."""
    images = read_images(spec)
    # Text first: a class name that is too long is found before hours of images.
    text = read_text(images.class_names, backbone, store=store, device=text_device)
    features = embed(
        spec,
        backbone,
        store=store,
        pool=pool,
        observer=observer,
        device=device,
        resources=resources,
        stopping=stopping,
    )
    source = source_of_features(images, features.x, features.rows, text.vectors)
    source = dataclasses.replace(source, warnings=source.warnings + features.warnings)
    return Embedded(source, features, text, backbone_digests(backbone))
