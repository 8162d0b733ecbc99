"""Captions made of the phrases that CLIP finds in a picture.

    by text        p(phrase) = softmax(scale · cos(E(x), "a photo of a {phrase} {name}."))
    by exemplars   p(phrase) of linear discriminant analysis on unit vectors of drawn pictures,
                   one covariance, shrunk: Σ = (1 - s) S + s tr(S)/d I

A phrase below `certainty` is left unsaid. A captioned picture is compared with its caption once
more: that cosine is the score.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from raycl.backbones.encoder import Encoder
from raycl.captions.captioner import Said
from raycl.captions.phrases import DrawnSlot, TextSlot, caption_of, exemplars, slots_of
from raycl.config.captions import AttributesCaptioner

SHRINKAGE = 0.1


class Attributes:
    """Holds the encoder, and of each drawn slot the discriminants."""

    def __init__(self, spec: AttributesCaptioner, encoder: Encoder) -> None:
        self.spec, self.encoder = spec, encoder
        self.batch = encoder.batch
        self.slots = slots_of(spec)
        self._drawn = {s.name: self._learn(s) for s in self.slots if isinstance(s, DrawnSlot)}
        self._texts: dict[str, Tensor] = {}

    def say(self, name: str, images: Sequence[Image.Image]) -> list[Said]:
        x = self.vectors(images)
        said: list[dict[str, str]] = [{} for _ in images]
        for slot in self.slots:
            sure, found = self.probabilities(slot, name, x).max(dim=1)
            for phrases, p, i in zip(said, sure.tolist(), found.tolist(), strict=True):
                if p >= self.spec.certainty:
                    phrases[slot.name] = slot.phrases[i]
        texts = [caption_of(name, phrases) for phrases in said]
        scores = (x * self._text_vectors(texts)).sum(dim=1)
        return [Said(t, round(s, 4)) for t, s in zip(texts, scores.tolist(), strict=True)]

    def probabilities(self, slot: TextSlot | DrawnSlot, name: str, x: Tensor) -> Tensor:
        """(n, phrases) of these unit vectors."""
        if isinstance(slot, DrawnSlot):
            weight, bias = self._drawn[slot.name]
            return (x @ weight + bias).softmax(dim=1)
        asked = [slot.asked.format(phrase=phrase, name=name) for phrase in slot.phrases]
        return (self.encoder.logit_scale * x @ self._text_vectors(asked).T).softmax(dim=1)

    def vectors(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors of these pictures."""
        pixels = torch.stack([self.encoder.preprocess(image) for image in images])
        return normalize(self.encoder.encode_images(pixels), dim=1)

    def _text_vectors(self, texts: Sequence[str]) -> Tensor:
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            vectors = normalize(self.encoder.encode_texts(new), dim=1)
            self._texts |= dict(zip(new, vectors, strict=True))
        return torch.stack([self._texts[text] for text in texts])

    def _learn(self, slot: DrawnSlot) -> tuple[Tensor, Tensor]:
        """Weights and biases of a slot's phrases."""
        x = torch.stack([self.vectors(exemplars(self.spec, slot, p)) for p in slot.phrases])
        means = x.mean(dim=1)
        within = (x - means[:, None]).flatten(0, 1)
        spread = within.T @ within / len(within)
        round_ = spread.trace() / len(spread) * torch.eye(len(spread))
        weight = torch.linalg.solve((1 - SHRINKAGE) * spread + SHRINKAGE * round_, means.T)
        return weight, -0.5 * (means.T * weight).sum(dim=0)
