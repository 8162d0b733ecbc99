"""The text vectors of class names, made once per (names, backbone, template).

Guarantees: finite vectors, one per name in the order given, not normalised; a hit loads no
model, for the model's own logit scale is stored beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raycl.backbones.content import backbone_digests
from raycl.backbones.encoder import load_encoder
from raycl.compute.threads import limited_threads
from raycl.config.backbones import Backbone
from raycl.embedding.device import pick_device
from raycl.embedding.identity import text_spec
from raycl.errors import DataError
from raycl.store.store import Payloads, Store
from raycl.streams.source import Floats, listed


@dataclass(frozen=True)
class Text:
    """One vector per class name, and what the model multiplies cosines with."""

    vectors: Floats
    logit_scale: float
    key: str


def read_text(
    class_names: Sequence[str], backbone: Backbone, *, store: Store, device: str = "cpu"
) -> Text:
    """The text vectors: found in the store, or made and stored."""
    spec = text_spec(class_names, backbone, backbone_digests(backbone))
    payloads = store.get_or_make(spec, lambda: _make(class_names, backbone, device))
    vectors = payloads["text.safetensors"]["text"].numpy()
    return Text(vectors, payloads["model.json"]["logit_scale"], spec.key)


def _make(class_names: Sequence[str], backbone: Backbone, device: str) -> Payloads:
    encoder = load_encoder(backbone, pick_device(device))
    # One thread, as in the workers, so that the numbers are the same.
    with limited_threads(1):
        vectors = encoder.encode_texts([backbone.template.format(n) for n in class_names])
    bad = np.flatnonzero(~torch.isfinite(vectors).all(dim=1).numpy())
    if len(bad):
        raise DataError(
            f"the encoder gives NaN or infinity for {len(bad)} class names",
            got=listed([class_names[int(c)] for c in bad]),
            do="set backbone.precision=fp32, or look at the backbone's weights",
        )
    model = {"logit_scale": float(encoder.logit_scale), "context": encoder.context}
    return {"text.safetensors": {"text": vectors.float().contiguous()}, "model.json": model}
