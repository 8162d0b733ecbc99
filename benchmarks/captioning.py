"""Captions per second: by attributes through tiny-CLIP, and by BLIP of its true size.

The BLIP has random weights of the published architecture (base, 384 × 384), so its words mean
nothing and its seconds do; it is written to a temporary folder and read like any checkpoint.
One thread. --quick: a tiny BLIP and fewer images.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from raycl.captions.captioner import Captioner, build_captioner
from raycl.config.backbones import Backbone
from raycl.config.captions import AttributesCaptioner, BLIPCaptioner
from raycl.config.streams import DigitsStream
from raycl.streams.opened import OpenedImages

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def rate(captioner: Captioner, images: list[Image.Image]) -> float:
    """Images captioned per second, after one pass to warm up."""
    captioner.say("7", images[: captioner.batch])
    began = time.perf_counter()
    for first in range(0, len(images), captioner.batch):
        captioner.say("7", images[first : first + captioner.batch])
    return len(images) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    from tests.captions.made_blip import save_blip

    pictures = OpenedImages(DigitsStream())
    images = [pictures.image(row) for row in range(64 if arguments.quick else 512)]
    cpu, clip = torch.device("cpu"), Backbone(name="tiny-clip")
    attributes = rate(build_captioner(AttributesCaptioner(), clip, cpu), images)
    out: dict[str, Any] = {"name": "captioning", "attributes_per_s": attributes}
    with tempfile.TemporaryDirectory() as folder:
        model = save_blip(Path(folder) / "blip", full_size=not arguments.quick)
        few = images[:16] if arguments.quick else images[:8]
        for beams in (1, 3):
            spec = BLIPCaptioner(model=str(model), beams=beams, batch=4)
            out[f"blip_beams_{beams}_per_s"] = rate(build_captioner(spec, clip, cpu), few)
            print(f"BLIP, {beams} beams: {out[f'blip_beams_{beams}_per_s']:.3f}/s", file=sys.stderr)
        out["blip_bytes"] = sum(file.stat().st_size for file in model.iterdir())
    out["ratio"] = attributes / out["blip_beams_3_per_s"]
    out |= {"machine": platform.processor() or platform.machine(), "quick": arguments.quick}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
