"""What tiny-SD draws, judged by tiny-CLIP, and pictures of it beside real images.

    python benchmarks/tiny_sd.py [--quick] [--model FOLDER] [--picture samples.png]

Samples of each class from `a photo of a {}.`, by domain and among the domain's own classes:
how many tiny-CLIP calls by their name (beside how many real test images it does), and how a
logistic regression on the samples' vectors does on real test images. `ratio` is the first on
digits over the aim of 80 %.

Expectation, written before measuring: 80 % on digits; less on letters, of which each is seen
a quarter as often; nested shapes in pairs that it never saw are the hardest.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from raycl.backbones.encoder import Encoder, load_encoder
from raycl.compute.threads import limit_threads
from raycl.config.backbones import TINY_CLIP, Backbone
from raycl.config.streams import DigitsStream, GlyphsStream, TinyXtailStream
from raycl.config.synthesis import TINY_SD, Synthesis
from raycl.engine.synthesis import synthesis_of
from raycl.streams.images import ImageSet, read_images
from raycl.synthesis.pipeline import Painter

CPU = torch.device("cpu")
STREAMS = {"digits": DigitsStream(), "glyphs": GlyphsStream(), "tiny-xtail": TinyXtailStream()}
SHOWN = 10


def samples(painter: Painter, names: list[str], each: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and labels, `each` of every class; those without a fault."""
    labels = np.repeat(np.arange(len(names)), each)
    pictures, kept = [], []
    for first in range(0, len(labels), painter.spec.chunk):
        part = labels[first : first + painter.spec.chunk]
        texts = [f"a photo of a {names[c]}." for c in part]
        seeds = list(range(first, first + len(part)))
        for label, one in zip(part, painter.paint(texts, seeds), strict=True):
            if one.pixels is not None:
                pictures.append(one.pixels)
                kept.append(label)
    return np.stack(pictures), np.asarray(kept)


def unit_vectors(encoder: Encoder, pictures: list[Image.Image]) -> np.ndarray:
    pixels = torch.stack([encoder.preprocess(picture) for picture in pictures])
    return torch.nn.functional.normalize(encoder.encode_images(pixels)).numpy()


def percent(right: np.ndarray) -> float:
    return round(100 * float(right.mean()), 1)


def judged(
    encoder: Encoder, painter: Painter, images: ImageSet, classes: np.ndarray, each: int
) -> tuple[dict[str, float], np.ndarray]:
    """The figures of some classes, and a strip of pictures: a row each, samples then real."""
    names = [images.class_names[c] for c in classes]
    began = time.perf_counter()
    pictures, labels = samples(painter, names, each)
    seconds = time.perf_counter() - began
    x = unit_vectors(encoder, [Image.fromarray(p) for p in pictures])
    text = encoder.encode_texts([f"a photo of a {name}." for name in names])
    told = (x @ torch.nn.functional.normalize(text).numpy().T).argmax(1)
    test = np.flatnonzero((images.splits == "test") & np.isin(images.labels, classes))
    place = {c: i for i, c in enumerate(classes.tolist())}
    real_labels = np.asarray([place[int(images.labels[row])] for row in test])
    real = unit_vectors(encoder, [images.image(int(row)) for row in test])
    real_told = (real @ torch.nn.functional.normalize(text).numpy().T).argmax(1)
    probe = LogisticRegression(C=100, max_iter=2000).fit(x, labels)
    figures = {
        "classes": len(classes),
        "samples_recognised": percent(told == labels),
        "real_recognised": percent(real_told == real_labels),
        "probe_on_samples_real_images": percent(probe.predict(real) == real_labels),
        "ms_per_image": round(1000 * seconds / len(labels), 1),
    }
    rows = [
        np.concatenate(
            [*pictures[labels == i][:SHOWN], np.full((32, 8, 3), 255, np.uint8)]
            + [
                np.asarray(images.image(int(r)).resize((32, 32)))
                for r in test[real_labels == i][:SHOWN]
            ],
            axis=1,
        )
        for i in range(len(classes))
    ]
    return figures, np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="digits only, few samples")
    parser.add_argument("--model", default=TINY_SD)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--guidance", type=float, default=None)
    parser.add_argument("--picture", type=Path, default=None, help="a PNG of samples and digits")
    options = parser.parse_args()
    limit_threads(1)
    spec: Synthesis = synthesis_of(TINY_SD, options.preset)
    change = {"model": options.model}
    spec = spec.model_copy(
        update=change | ({} if options.guidance is None else {"guidance": options.guidance})
    )
    painter, encoder = Painter(spec, CPU), load_encoder(Backbone(name=TINY_CLIP), CPU)
    out: dict[str, dict[str, float]] = {}
    for name in ["digits"] if options.quick else STREAMS:
        images = read_images(STREAMS[name])
        for domain, label in enumerate(images.domains):
            classes = np.flatnonzero(images.class_domain == domain)
            part = f"{name}/{label}" if len(images.domains) > 1 else name
            out[part], strip = judged(
                encoder, painter, images, classes, 20 if options.quick else 40
            )
            print(part, out[part], flush=True)
            if options.picture and part == "digits":
                sheet = Image.fromarray(strip)
                sheet.resize((2 * sheet.width, 2 * sheet.height), 0).save(options.picture)
    ratio = round(out["digits"]["samples_recognised"] / 80, 3)
    told = {"name": "tiny_sd", "steps": spec.steps, "guidance": spec.guidance}
    print(json.dumps({**told, "ratio": ratio, "by_domain": out}))


if __name__ == "__main__":
    main()
