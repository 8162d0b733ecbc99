"""From the spec of a stream to its vectors: given in files, or embedded here and now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raycl.backbones.encoder import Encoder, load_encoder
from raycl.compute.local_pool import LocalPool
from raycl.compute.pool import Pool, Resources
from raycl.config.backbones import GIVEN_LOGIT_SCALE, Backbone
from raycl.config.execution import Execution
from raycl.config.streams import (
    EmbeddingsStream,
    ImageStream,
    StreamSpec,
)
from raycl.embedding.device import pick_device
from raycl.embedding.source import Embedded, embedded
from raycl.engine.host import Host
from raycl.store.store import Store
from raycl.streams.opened import OpenedImages
from raycl.streams.source import Ints, Source
from raycl.streams.stream import Decode, read_source


@dataclass(frozen=True)
class Data:
    """The vectors of a stream and what came with them."""

    source: Source
    logit_scale: float
    encoder: Encoder | None = None
    """The towers behind the vectors, if there are any; loaded when first asked."""
    keys: tuple[str, ...] = ()
    """Stored artefacts that the vectors were read from."""
    corrupt: tuple[str, ...] = ()
    """Images that were left out, by path."""
    decode: Decode | None = None
    """The pixels of the images, if there are any; opened when first asked."""


class EncoderWhenAsked(Encoder):
    """An encoder that is loaded at its first use: most methods need its vectors only."""

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self._asked = backbone, device

    def __getattr__(self, name: str) -> Any:
        # Reached only for what is not there, which is everything until it is loaded.
        if name.startswith("__") or "text" in vars(self):
            raise AttributeError(name)
        vars(self).update(vars(load_encoder(*self._asked)))
        return getattr(self, name)


class Decoder:
    """The preprocessed pixels of a stream's images, for the methods that encode them."""

    def __init__(self, spec: ImageStream, encoder: Encoder) -> None:
        self.pictures = OpenedImages(spec)
        self._encoder = encoder

    def __call__(self, rows: Ints) -> Tensor:
        if not len(rows):
            return torch.empty(0, 3, *self._encoder.image_size)
        return torch.stack([self._encoder.preprocess(self.pictures.image(int(r))) for r in rows])


def read_data(
    spec: StreamSpec,
    backbone: Backbone,
    execution: Execution,
    *,
    store: Store,
    pool: Pool,
    host: Host,
) -> Data:
    """The checked source of a stream; images are embedded once and found ever after."""
    if isinstance(spec, EmbeddingsStream):
        return Data(read_source(spec), GIVEN_LOGIT_SCALE)
    found = embed_images(spec, backbone, execution, store=store, pool=pool, host=host)
    encoder = EncoderWhenAsked(backbone, pick_device(execution.device))
    return Data(
        source=found.source,
        logit_scale=found.text.logit_scale,
        encoder=encoder,
        keys=found.keys,
        corrupt=found.features.corrupt,
        decode=Decoder(spec, encoder),
    )


def embed_images(
    spec: ImageStream,
    backbone: Backbone,
    execution: Execution,
    *,
    store: Store,
    pool: Pool,
    host: Host,
) -> Embedded:
    """Embed where the GPU is: with the workers if they have one, else here if we have one."""
    worker = Resources(execution.worker.cpus, execution.worker.gpus)
    here = pick_device("auto" if worker.gpus else execution.device).type
    if here != "cpu" and not worker.gpus:
        pool = LocalPool(stopping=host.stopping)
    return embedded(
        spec,
        backbone,
        store=store,
        pool=pool,
        observer=host.emit,
        device=execution.device if worker.gpus else here,
        text_device=here,
        resources=worker,
        stopping=host.stopping,
    )
