"""Prompts up to their end-of-text token, against the whole context: same keys, less work.

Expectation, written before measuring: the work of a step is linear in the rows encoded
(attention is a few per cent at 77). Prompts of one soft token and a class name are some 6
tokens long, one of which is the constant start token: near 77 / 5, hence 12 or more; less
where the tower is so small that its calls, not its arithmetic, take the time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from raycl.backbones.encoder import load_encoder
from raycl.config.backbones import Backbone
from raycl.methods.parts.prompts import PromptAssembly, Prompts

NAMES = (
    "goldfish", "great white shark", "hammerhead", "stingray", "hen", "ostrich", "goldfinch",
    "junco", "bald eagle", "vulture", "newt", "axolotl", "tree frog", "iguana",
    "African chameleon", "cobra",
)  # fmt: skip
"""Some of ImageNet-R."""
SIDES = ("full", "truncated")


def step(prompts: Prompts, soft: Tensor) -> Tensor:
    """Gradients of all soft tokens."""
    (gradient,) = torch.autograd.grad(prompts.keys(soft).sin().sum(), soft)
    return gradient


def measure(backbone: str, repeats: int) -> dict[str, Any]:
    """Median seconds of forward and backward, the sides taking turns."""
    tower = load_encoder(Backbone(name=backbone), torch.device("cpu")).text
    soft = 0.02 * torch.randn(
        len(NAMES), 1, tower.token_width, generator=torch.Generator().manual_seed(0)
    )
    classes = torch.arange(len(NAMES))
    assembly = PromptAssembly(tower, NAMES, 1)
    sides = {
        "full": PromptAssembly(tower, NAMES, 1, truncate=False).of(classes),
        "truncated": assembly.of(classes),
    }
    with torch.no_grad():
        full, cut = (sides[side].keys(soft) for side in SIDES)
    soft.requires_grad_()
    taken: dict[str, list[float]] = {side: [] for side in SIDES}
    for repeat in range(repeats + 1):
        for side, prompts in sides.items():
            began = time.perf_counter()
            step(prompts, soft)
            if repeat:  # the first pair warms up
                taken[side].append(time.perf_counter() - began)
    seconds = {side: statistics.median(values) for side, values in taken.items()}
    return {
        "full_s": seconds["full"],
        "truncated_s": seconds["truncated"],
        "ratio": seconds["full"] / seconds["truncated"],
        "rows": {
            "full": len(NAMES) * tower.context,
            "truncated": int((assembly.ends + assembly.between).sum()),
        },
        "largest_key_difference": float((full - cut).abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    tiny = measure("tiny-clip", 5 if quick else 31)
    large = measure("ViT-B-32:random", 1 if quick else 5)
    out = {
        "name": "prompt_truncation",
        "prompts": len(NAMES),
        "tiny-clip": tiny,
        "ViT-B-32": large,
        "ratio": large["ratio"],
        "machine": f"{os.cpu_count()} cores, one used, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
