"""Prompts encoded by two workers while they are trained, against the trainer alone.

A label space of 128 classes, 16 soft tokens, a text tower of ViT-B/16's size with random weights,
one thread each; whole steps of `KeyHead.train_on`, sides alternating. The losses must be equal
bit for bit.

Expectation, written before measuring: a shard is encoded once for its keys and again for its
gradient, so 4/3 of the work over two workers: 1.5 at best; soft tokens and keys of 128 classes are
4 MB a step both ways, some milliseconds beside seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import replace

import torch
from torch import Tensor

from raycl.backbones.encoder import load_encoder
from raycl.compute.local_pool import LocalPool
from raycl.compute.ray_pool import RayPool
from raycl.compute.ray_session import connect
from raycl.config.backbones import Backbone
from raycl.config.execution import Execution
from raycl.config.methods import Align, MappedTokens
from raycl.config.streams import Validation
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.key_head import Kept
from raycl.methods.parts.keys import unit
from raycl.methods.parts.mapped_heads import MappedTokenHead
from raycl.methods.parts.prompt_shards import Crew
from raycl.observe.events import nobody

BACKBONE = Backbone(name="ViT-B-16:random")
CLASSES, BATCH = 128, 128


def make_setting() -> Setting:
    encoder = load_encoder(BACKBONE, torch.device("cpu"))
    names = tuple(f"thing number {c}" for c in range(CLASSES))
    return Setting(
        class_names=names,
        text=unit(torch.randn(CLASSES, encoder.width, generator=torch.Generator().manual_seed(1))),
        has_text=torch.ones(CLASSES, dtype=torch.bool),
        logit_scale=30.0,
        init_seed=0,
        validation=Validation(seed=0),
        device=torch.device("cpu"),
        encoder=encoder,
    )


def steps(setting: Setting, count: int) -> tuple[Tensor, float]:
    """Losses, and seconds of a step, its worker's start left out."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(count * BATCH) % CLASSES
    data = Kept(setting.text[y] + torch.randn(len(y), setting.width, generator=generator), y)
    head = MappedTokenHead(setting, MappedTokens(tokens=16))
    space = tuple(range(CLASSES))
    trainable = head.prepare(space)
    with torch.no_grad():
        trainable.keys()
    began = time.perf_counter()
    align = Align(lr=0.01, epochs=1, batch=BATCH)
    losses = head.train_on(data, trainable, space, align, Context(0, LocalPool(), nobody))
    return torch.stack(losses), (time.perf_counter() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    setting, sides = make_setting(), dict[str, list[float]]()
    execution = Execution(pool="ray", workers=2, encodes="workers")
    with connect(), RayPool(workers=2) as pool:
        crew = Crew.of(execution, BACKBONE, pool)
        for _ in range(1 if quick else 3):
            alone, seconds = steps(setting, 2)
            sides.setdefault("trainer", []).append(seconds)
            together, seconds = steps(replace(setting, crew=crew), 2)
            sides.setdefault("workers", []).append(seconds)
            assert torch.equal(alone, together), "the losses differ"
    medians = {side: statistics.median(times) for side, times in sides.items()}
    out = {
        "name": "crew",
        "seconds_a_step": medians,
        "ratio": medians["trainer"] / medians["workers"],
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
