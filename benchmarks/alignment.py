"""A step of aligning prompts: raycl's exact and fast modes against a plain 77-token loop.

The plain loop is a user's first words for it: every prompt at the whole context through
open_clip's modules, keys normalised, torch's AdamW. Exact mode is raycl's trainer as a run uses
it; fast mode adds bf16 products.

Expectation, written before measuring: a step's work is linear in the rows that are encoded. Of
1,232 the prompts' ends leave 108 and the constant start tokens 92, and the last block makes 16:
1,232 / 87 or 14 at best, less what attention and small calls take. Where bf16 products take half
as long, 28 at best; a CPU without them gains nothing. The exact curve of losses must be the plain
one's to 1e-4. Accuracy in bf16 is measured on digits with tiny-CLIP, whose weights mean something;
with --quick it is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from raycl import Execution, Experiment, run
from raycl.backbones.encoder import load_encoder
from raycl.compute.local_pool import LocalPool
from raycl.config.backbones import Backbone
from raycl.config.generators import GaussianGenerator, Precision
from raycl.config.methods import CGIL, Align, AlignPrompts, MappedTokens
from raycl.config.streams import DigitsStream, Validation
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.key_head import Kept
from raycl.methods.parts.keys import unit
from raycl.methods.parts.mapped_heads import MappedTokenHead
from raycl.observe.events import Event, Progress, nobody

NAMES = (
    "goldfish", "great white shark", "hammerhead", "stingray", "hen", "ostrich", "goldfinch",
    "junco", "bald eagle", "vulture", "newt", "axolotl", "tree frog", "iguana",
    "African chameleon", "cobra",
)  # fmt: skip
"""Some of ImageNet-R."""
BACKBONE = "ViT-B-16:random"
BATCH, SEED, LR = 128, 0, 0.01
SEEDS = 10
"""Runs whose accuracies are compared."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def make_setting() -> Setting:
    encoder = load_encoder(Backbone(name=BACKBONE), torch.device("cpu"))
    return Setting(
        class_names=NAMES,
        text=unit(encoder.encode_texts([f"a photo of a {name}." for name in NAMES])),
        has_text=torch.ones(len(NAMES), dtype=torch.bool),
        logit_scale=30.0,
        init_seed=SEED,
        validation=Validation(seed=SEED),
        device=torch.device("cpu"),
        encoder=encoder,
    )


def samples(setting: Setting, steps: int) -> Kept:
    """As many batches as steps, around directions that are not the text's."""
    generator = torch.Generator().manual_seed(SEED)
    centre = torch.randn(len(NAMES), setting.width, generator=generator)
    y = torch.arange(steps * BATCH) % len(NAMES)
    return Kept(centre[y] + torch.randn(len(y), setting.width, generator=generator), y)


def plain(setting: Setting, data: Kept) -> tuple[list[float], list[float]]:
    """Losses and seconds of each step, at the whole context."""
    assert setting.encoder is not None
    tower, head = setting.encoder.text, MappedTokenHead(setting, MappedTokens())
    assert head.own is not None and head.map is not None
    tokens = tower.tokenise([f"{name}." for name in NAMES])
    embedded = tower.embed(tokens)[:, : tower.context - 2]
    ends = tower.ends(tokens) + 2
    own, mapped = head.own.clone().requires_grad_(), head.map.copies()
    optimiser = torch.optim.AdamW([own, *mapped], lr=LR, weight_decay=0.0)
    order = torch.randperm(len(data.x), generator=setting.generator("batches", 0, 0))
    losses, seconds = [], []
    for rows in order.split(BATCH):
        began = time.perf_counter()
        soft = torch.cat([own, head.map(setting.text, mapped)[:, None]], dim=1)
        prompts = torch.cat([embedded[:, :1], soft, embedded[:, 1:]], dim=1)
        keys = normalize(tower.encode(prompts, ends), dim=-1)
        logits = setting.logit_scale * normalize(data.x[rows], dim=-1) @ keys.T
        loss = cross_entropy(logits, data.y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
    return losses, seconds


def ours(setting: Setting, data: Kept, precision: Precision) -> tuple[list[float], list[float]]:
    """The same through the trainer."""
    head = MappedTokenHead(setting, MappedTokens())
    space = tuple(range(len(NAMES)))
    times = [time.perf_counter()]

    def note(event: Event) -> None:
        if isinstance(event, Progress):
            times.append(time.perf_counter())

    align = Align(lr=LR, epochs=1, batch=BATCH, precision=precision)
    trainable = head.prepare(space)
    times[0] = time.perf_counter()
    losses = head.train_on(data, trainable, space, align, Context(0, LocalPool(), note))
    steps = len(losses)
    return [float(loss) for loss in losses], [(times[-1] - times[0]) / steps] * steps


def accuracy(precision: Precision, seed: int) -> float:
    """Of CGIL on digits, the last stage's, with the tower of tiny-CLIP."""
    align = AlignPrompts(epochs=10, precision=precision, lr=LR)
    generator = GaussianGenerator(covariance="full")
    experiment = Experiment(
        method=CGIL(generator=generator, align=align), stream=DigitsStream(tasks=5), seed=seed
    )
    with tempfile.TemporaryDirectory() as store:
        result = run(experiment, Execution(store=store, pool="local"), nobody)
    return float(result.values["metrics"]["last_pooled"])


def accuracies() -> dict[str, Any]:
    """In points. One seed says little: rounding alone moves a run by half a point."""
    found = {p: [accuracy(p, seed) for seed in range(SEEDS)] for p in PRECISIONS}
    lost = np.array(found["fp32"]) - np.array(found["bf16"])
    return {
        **{precision: statistics.mean(values) for precision, values in found.items()},
        "lost": float(lost.mean()),
        "standard_error": float(lost.std(ddof=1) / len(lost) ** 0.5),
        "seeds": SEEDS,
    }


def gap(one: list[float], other: list[float]) -> float:
    return float(np.abs(np.array(one) - np.array(other)).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    steps, rounds = (3, 1) if quick else (6, 3)
    setting = make_setting()
    data = samples(setting, steps)
    sides = {
        "plain": lambda: plain(setting, data),
        "exact": lambda: ours(setting, data, "fp32"),
        "fast": lambda: ours(setting, data, "bf16"),
    }
    curves: dict[str, list[float]] = {}
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):  # the sides take turns
        for side, measured in sides.items():
            curves[side], found = measured()
            taken[side] += found
    seconds = {side: statistics.median(values) for side, values in taken.items()}
    assembly = MappedTokenHead(setting, MappedTokens()).learner.assembly
    out: dict[str, Any] = {
        "name": "alignment",
        "prompts": len(NAMES),
        "rows": {
            "plain": len(NAMES) * assembly.tower.context,
            "exact": int((assembly.ends + assembly.between).sum()),
        },
        "seconds_a_step": seconds,
        "ratio": seconds["plain"] / seconds["exact"],
        "ratio_fast": seconds["plain"] / seconds["fast"],
        "loss_gap": {side: gap(curves["plain"], curves[side]) for side in ("exact", "fast")},
        "losses": curves["exact"],
        "accuracy_digits": None if quick else accuracies(),
        "machine": f"{os.cpu_count()} cores, one used, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
