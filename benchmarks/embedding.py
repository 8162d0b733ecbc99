"""Decoding that runs ahead of encoding, against one after the other, on a folder of JPEGs.

Expectation, written before measuring: with a second core free, overlapped work takes as long
as the slower of the two, so the ratio serial / overlapped is (d + e) / max(d, e) for d and e
milliseconds of decoding and encoding an image. A 500×375 JPEG decodes and shrinks in some
3 ms on one core; tiny-CLIP encodes an image in about 1 ms, ViT-B/32 in some 60 ms. So about
1.3 for tiny-CLIP and 1.05 for ViT-B/32 on a CPU; near 2 only where a GPU brings the two
level. Without a free core the ratio is 1: there is nothing to win, and nothing to lose.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from raycl.compute.here import Here
from raycl.compute.threads import limited_threads
from raycl.config.backbones import Backbone
from raycl.config.seeds import rng
from raycl.config.streams import FolderStream
from raycl.embedding.encoding import Chunk, ChunkEncoder
from raycl.embedding.identity import EmbeddingIdentity

WIDTH, HEIGHT = 500, 375


def save_photographs(root: Path, images: int) -> FolderStream:
    """JPEGs of a photograph's size and smoothness, in two classes."""
    for i in range(images):
        coarse = rng(0, "photograph", i).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        grain = rng(0, "grain", i).normal(0, 12, (HEIGHT, WIDTH, 3))
        pixels = np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
        folder = root / ("train" if i % 4 else "test") / f"class {i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i:05}.jpg", quality=90)
    return FolderStream(paths=(str(root),))


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(spec: FolderStream, backbone: Backbone, store: Path, rounds: int) -> dict[str, float]:
    """Milliseconds an image: both ways, alternating, and each half alone."""
    names = EmbeddingIdentity.of(spec, backbone)
    worker = ChunkEncoder(names, str(store), "auto", 1, Here())
    rows = range(len(worker.images))
    chunk = Chunk(names.chunk(0, len(rows)), 0, len(rows))
    encoder = worker.encoder

    def decode(part: range) -> torch.Tensor:
        return torch.stack([encoder.preprocess(worker.images.image(row)) for row in part])

    def serial() -> None:
        for first in range(0, len(rows), backbone.batch):
            encoder.encode_images(decode(rows[first : first + backbone.batch]))

    pixels = decode(rows)
    worker.encode(chunk)
    ways = {
        "serial": serial,
        "overlapped": lambda: worker.encode(chunk),
        "decode": lambda: decode(rows),
        "encode": lambda: encoder.encode_images(pixels),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            taken[name].append(seconds(work))
    out = {f"{name}_ms": 1000 * statistics.median(t) / len(rows) for name, t in taken.items()}
    out["ratio"] = out["serial_ms"] / out["overlapped_ms"]
    slower = max(out["decode_ms"], out["encode_ms"])
    out["best_ratio"] = (out["decode_ms"] + out["encode_ms"]) / slower
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder, limited_threads(1):
        place = Path(folder)
        spec = save_photographs(place / "photographs", 128 if quick else 512)
        few = save_photographs(place / "few", 32)
        tiny = measure(spec, Backbone(name="tiny-clip"), place / "store", 3 if quick else 9)
        large = Backbone(name="ViT-B-32:random", batch=8)
        vit = measure(few, large, place / "store", 1 if quick else 3)
    out = {
        "name": "embedding",
        "tiny-clip": tiny,
        "ViT-B-32": vit,
        "ratio": tiny["ratio"],
        "machine": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
