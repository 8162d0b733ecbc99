"""How like its image CLIP finds a caption: the cosine of their vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch.nn.functional import normalize

from raycl.backbones.encoder import Encoder


class Likeness:
    """Holds the encoder."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __call__(self, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        pixels = torch.stack([self.encoder.preprocess(image) for image in images])
        x = normalize(self.encoder.encode_images(pixels), dim=1)
        t = normalize(self.encoder.encode_texts(list(texts)), dim=1)
        return [round(s, 4) for s in (x * t).sum(dim=1).tolist()]
