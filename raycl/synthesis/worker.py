"""The worker that paints chunks of prompts and stores the images of each chunk by itself.

Guarantees: a chunk is stored whole or not at all, so a kill costs a worker the chunk it was at;
a black, NaN or flagged image is painted again from seeds that follow of its own, a bounded
number of times, and told if it never came right.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from raycl.backbones.encoder import load_encoder
from raycl.compute.here import Here
from raycl.config.seeds import seed_for
from raycl.config.synthesis import Synthesis
from raycl.errors import DataError
from raycl.store.store import Payloads, Store
from raycl.synthesis.identity import FEATURES, IMAGES, NOTES, Chunk, Seeing
from raycl.synthesis.models import model_digest
from raycl.synthesis.pipeline import Painted, Painter, Pixels

EFFORT = 0
"""Of WebP's encoder: the least, since a lossless image is the same however small it is."""


@dataclass(frozen=True)
class ImageNotes:
    """What is known of one image."""

    sha256: str
    """Of its encoded bytes; empty if there is none."""
    bytes: int
    tries: int
    """Seeds that were used: 1 unless the first image was no good."""
    fault: str
    """Empty, or why there is no image: `nan`, `black` or `flagged`."""
    tokens_cut: int
    """Tokens at the end of its prompt that the model does not read."""


@dataclass(frozen=True)
class ChunkMade:
    """What a worker tells of a chunk."""

    notes: list[dict[str, Any]]
    computed: bool
    seconds: float


class ChunkPainter:
    """Holds the pipeline and the store; called with one chunk after the other."""

    def __init__(self, spec: Synthesis, model: str, store: str, device: str, here: Here) -> None:
        if model_digest(spec) != model:
            raise DataError(
                "the model read here is not the one that was asked for",
                got=spec.model,
                do="put the same files at the same path on every node, and leave them alone",
            )
        self.spec = spec
        self.painter = Painter(spec, torch.device(device), here.stopping)
        self.store = Store.open(store, stopping=here.stopping)

    def __call__(self, chunk: Chunk) -> ChunkMade:
        kind = chunk.artefact.kind
        before = self.store.computed[kind]
        notes = self.store.get_or_make(chunk.artefact, lambda: self.paint(chunk))[NOTES]
        record = self.store.record(chunk.artefact)
        computed = self.store.computed[kind] > before
        return ChunkMade(notes["images"], computed, record.seconds if record else 0.0)

    def paint(self, chunk: Chunk) -> Payloads:
        """The payloads of a chunk: its images in order, and what is known of each."""
        painted, tries = self._tried(chunk)
        with ThreadPoolExecutor(max(1, torch.get_num_threads()), "raycl-webp") as threads:
            encoded = list(threads.map(lambda one: webp(one.pixels), painted))
        table = pa.table({"image": pa.array(encoded, pa.large_binary())})
        return {IMAGES: table, NOTES: {"images": self._notes(chunk, painted, tries, encoded)}}

    def _notes(
        self,
        chunk: Chunk,
        painted: Sequence[Painted],
        tries: Sequence[int],
        encoded: Sequence[bytes],
    ) -> list[dict[str, Any]]:
        cut = {text: self.painter.tokens_cut(text) for text in {p.text for p in chunk.prompts}}
        return [
            asdict(
                ImageNotes(
                    sha256=hashlib.sha256(data).hexdigest() if data else "",
                    bytes=len(data),
                    tries=count,
                    fault=one.fault,
                    tokens_cut=cut[prompt.text],
                )
            )
            for one, data, count, prompt in zip(painted, encoded, tries, chunk.prompts, strict=True)
        ]

    def _tried(self, chunk: Chunk) -> tuple[list[Painted], list[int]]:
        """Each image, painted until it is good or its tries are used up."""
        painted: list[Painted] = [Painted(None, "unpainted")] * len(chunk)
        tries = [0] * len(chunk)
        for attempt in range(self.spec.tries):
            bad = [i for i, one in enumerate(painted) if one.pixels is None]
            if not bad:
                break
            texts = [chunk.prompts[i].text for i in bad]
            seeds = [_seed(chunk.prompts[i].seed, attempt) for i in bad]
            for i, one in zip(bad, self.painter.paint(texts, seeds), strict=True):
                painted[i], tries[i] = one, attempt + 1
        return painted, tries


class FeaturePainter(ChunkPainter):
    """Paints, and keeps what an encoder sees, not the images."""

    def __init__(
        self,
        spec: Synthesis,
        model: str,
        store: str,
        device: str,
        here: Here,
        seeing: Seeing,
    ) -> None:
        super().__init__(spec, model, store, device, here)
        self.encoder = load_encoder(seeing.backbone, torch.device(device))
        self.side = seeing.side

    def paint(self, chunk: Chunk) -> Payloads:
        """The payloads of a chunk: a vector of each image there is, and what is known of all.

        Digests are of the pixels, since nothing is encoded.
        """
        painted, tries = self._tried(chunk)
        rows = [i for i, one in enumerate(painted) if one.pixels is not None]
        vectors = np.zeros((0, self.encoder.width), np.float32)
        if rows:
            pixels = [self.encoder.preprocess(self._scaled(painted[i].pixels)) for i in rows]
            vectors = self.encoder.encode_images(torch.stack(pixels)).numpy()
        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        listed = pa.FixedSizeListArray.from_arrays(flat, self.encoder.width)
        table = pa.table({"row": pa.array(rows, pa.int64()), "embedding": listed})
        data = [b"" if one.pixels is None else one.pixels.tobytes() for one in painted]
        return {FEATURES: table, NOTES: {"images": self._notes(chunk, painted, tries, data)}}

    def _scaled(self, pixels: Pixels | None) -> Image.Image:
        assert pixels is not None
        image = Image.fromarray(pixels)
        if self.side is None:
            return image
        return image.resize((self.side, self.side), Image.Resampling.BICUBIC)


def _seed(seed: int, attempt: int) -> int:
    return seed if attempt == 0 else seed_for(seed, "painted again", attempt)


def webp(pixels: Pixels | None) -> bytes:
    """The image without loss; nothing where there is none."""
    if pixels is None:
        return b""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", lossless=True, quality=EFFORT, method=EFFORT)
    return out.getvalue()
