"""What tiny-CLIP knows without learning, and what a linear probe finds in its vectors.

    python benchmarks/tiny_clip.py [--quick] [--backbone local-dir:FOLDER]

Zero-shot with the backbone's template, and logistic regression on the training split, by
domain, each among the domain's own classes; `ratio` is zero-shot over chance on digits.
"""

from __future__ import annotations

import argparse
import json
import platform

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from raycl.backbones.encoder import Encoder, load_encoder
from raycl.config.backbones import TINY_CLIP, Backbone
from raycl.config.streams import DigitsStream, GlyphsStream, TinyXtailStream
from raycl.streams.images import ImageSet, read_images

STREAMS = {"digits": DigitsStream(), "glyphs": GlyphsStream(), "tiny-xtail": TinyXtailStream()}


def unit_vectors(encoder: Encoder, images: ImageSet) -> np.ndarray:
    """Every image's vector, of length one."""
    pixels = torch.stack([encoder.preprocess(images.image(row)) for row in range(len(images))])
    return torch.nn.functional.normalize(encoder.encode_images(pixels)).numpy()


def judge(
    x: np.ndarray, images: ImageSet, text: np.ndarray, classes: np.ndarray
) -> dict[str, float]:
    """Percent right on the test split of some classes."""
    mine = np.isin(images.labels, classes)
    train, test = (mine & (images.splits == split) for split in ("train", "test"))
    zero_shot = classes[(x[test] @ text[classes].T).argmax(1)]
    probe = LogisticRegression(C=100, max_iter=2000).fit(x[train], images.labels[train])
    return {
        "classes": len(classes),
        "test": int(test.sum()),
        "zero_shot": round(100 * float((zero_shot == images.labels[test]).mean()), 1),
        "linear_probe": round(100 * probe.score(x[test], images.labels[test]), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="digits only")
    parser.add_argument("--backbone", default=TINY_CLIP)
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone = Backbone(name=options.backbone)
    encoder = load_encoder(backbone, torch.device("cpu"))
    out: dict[str, dict[str, float]] = {}
    for name in ["digits"] if options.quick else STREAMS:
        images = read_images(STREAMS[name])
        x = unit_vectors(encoder, images)
        texts = [backbone.template.format(c) for c in images.class_names]
        text = torch.nn.functional.normalize(encoder.encode_texts(texts)).numpy()
        for domain, label in enumerate(images.domains):
            classes = np.flatnonzero(images.class_domain == domain)
            part = f"{name}/{label}" if len(images.domains) > 1 else name
            out[part] = judge(x, images, text, classes)
            print(part, out[part], flush=True)
    chance = 100 / out["digits"]["classes"]
    print(
        json.dumps(
            {
                "name": "tiny_clip",
                "zero_shot": out["digits"]["zero_shot"],
                "chance": chance,
                "ratio": round(out["digits"]["zero_shot"] / chance, 2),
                "by_domain": out,
                "machine": platform.processor() or platform.machine(),
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
