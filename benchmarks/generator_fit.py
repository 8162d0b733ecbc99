"""One VAE per class: raycl on all cores against a plain loop over the classes.

Expectation, written before measuring: on two cores 2 workers × 1.5 from the fused optimiser and
from memory that is not faulted in at every step, so 3.0 in fp32 and 3.5 in bf16, whose products
take half as long and whose optimiser takes the same; a second thread in the plain loop helps
little, as a product of 64 rows is too small to share. Quality must be equal within 2 %, as far as
the standard errors (`_se`) over so many classes can tell.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.pool import Pool
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from raycl.config.generators import Precision, VAEGenerator
from raycl.config.seeds import seed_for
from raycl.generators.adamw import AdamW
from raycl.generators.build import fit
from raycl.generators.vectors import ClassVectors

WIDTH, ROWS, HIDDEN, LATENT, BATCH, LR = 512, 200, 512, 256, 64, 2e-4
DRAWN = 2048
CORES = 2


class PlainVAE(nn.Module):
    """The published model in a user's first words."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(WIDTH, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(HIDDEN, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(HIDDEN, 2 * LATENT),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, HIDDEN), nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(HIDDEN, HIDDEN), nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(HIDDEN, WIDTH),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return self.decoder(z), mean, log_variance


def plain_fit(x: Tensor, epochs: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Decoder, mean and deviation of one class."""
    mean, std = x.mean(dim=0), x.std(dim=0)
    model = PlainVAE()
    optimiser = torch.optim.Adam(model.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        optimiser, max(1, epochs // 10), 2
    )
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset((x - mean) / std), batch_size=BATCH, shuffle=True
    )
    for _ in range(epochs):
        for (batch,) in loader:
            optimiser.zero_grad()
            guess, centre, log_variance = model(batch)
            error = F.gaussian_nll_loss(
                guess, batch, torch.ones_like(guess), full=True, reduction="sum"
            )
            kl = 0.5 * (log_variance.exp() + centre**2 - 1 - log_variance).sum()
            ((error + kl) / len(batch)).backward()
            optimiser.step()
        schedule.step()
    return model.decoder, mean, std


def made_class(c: int) -> ClassVectors:
    """Correlated vectors, as embeddings are: 40 directions and a little noise."""
    random = torch.Generator().manual_seed(c)
    mix = torch.randn(40, WIDTH, generator=random) / 40**0.5
    x = torch.randn(ROWS, 40, generator=random) @ mix
    x = x + 0.3 * torch.randn(ROWS, WIDTH, generator=random)
    return ClassVectors(
        f"class {c}", x + torch.randn(WIDTH, generator=random), seed_for(0, "generator", c)
    )


def quality(samples: Tensor, c: ClassVectors) -> tuple[float, float]:
    """Error of the mean in deviations, and deviation of samples over that of vectors."""
    std = c.vectors.std(dim=0)
    off = (samples.mean(dim=0) - c.vectors.mean(dim=0)) / std
    return float(off.square().mean().sqrt()), float((samples.std(dim=0) / std).mean())


def plain_one(work: tuple[int, int, str]) -> tuple[float, float, float]:
    c, epochs, _ = work
    began, data = time.process_time(), made_class(c)
    torch.manual_seed(c)
    decoder, mean, std = plain_fit(data.vectors, epochs)
    with torch.no_grad():
        seconds = time.process_time() - began
        return *quality(decoder(torch.randn(DRAWN, LATENT)) * std + mean, data), seconds


def raycl_one(work: tuple[int, int, str]) -> tuple[float, float, float]:
    c, epochs, side = work
    began, data = time.process_time(), made_class(c)
    precision: Precision = "bf16" if side == "bf16" else "fp32"
    bank = fit(VAEGenerator(epochs=epochs, precision=precision), [data])
    seconds = time.process_time() - began
    return *quality(bank.sample(DRAWN, [c])[0], data), seconds


def processes(workers: int, threads: int) -> Pool:
    """New ones, with so many threads of torch each."""
    context = multiprocessing.get_context("spawn")
    return context.Pool(workers, initializer=torch.set_num_threads, initargs=(threads,))


def timed(side: str, workers: int, threads: int, classes: int, epochs: int) -> dict[str, Any]:
    """Seconds from the first class to the last; processes are started and warm before."""
    one = plain_one if side == "loop" else raycl_one
    with processes(workers, threads) as pool:
        pool.map(one, [(10_000 + i, 1, side) for i in range(workers)], chunksize=1)
        began = time.perf_counter()
        found = pool.map(one, [(c, epochs, side) for c in range(classes)], chunksize=1)
        seconds = time.perf_counter() - began
    errors, ratios, cpu = zip(*found, strict=True)
    return {
        "seconds": seconds,
        "seconds_per_class": seconds / classes,
        "cpu_seconds_per_class": statistics.mean(cpu),
        "class_mean_error": statistics.mean(errors),
        "class_mean_error_se": statistics.stdev(errors) / classes**0.5,
        "std_ratio": statistics.mean(ratios),
        "std_ratio_se": statistics.stdev(ratios) / classes**0.5,
    }


SHAPES = [(WIDTH, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2 * LATENT),
          (LATENT, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, WIDTH)]  # fmt: skip
PARAMETERS = sum(a * b for a, b in SHAPES)
WALKED = 4
"""Weights, two moments and gradients: a product meets its weights again after so many times
their bytes, which is more than a core's cache and less than a socket's."""


def roofline(epochs: int) -> dict[str, Any]:
    """What one core could do at best, in seconds per class, while the other does the same.

    peak: every product at the speed of one whose matrices stay in the cache. cold: the products
    of a step in its own shapes and order, with weights that have left the core's cache since.
    Both with the optimiser's walk through its memory, and with nothing else.
    """
    with processes(CORES, 1) as pool:
        found = pool.map(floors, [epochs] * CORES, chunksize=1)
    mean = {name: statistics.mean(f[name] for f in found) for name in found[0]}
    out: dict[str, Any] = {"optimiser_mb_per_step": 7 * 4 * PARAMETERS / 1e6}
    out["optimiser_s"] = mean["optimiser"]
    for side in ("fp32", "bf16"):
        out[side] = {
            "gemm_gflops": mean[f"{side}_rate"] / 1e9,
            "peak_s": mean[f"{side}_peak"] + mean["optimiser"],
            "cold_s": mean[f"{side}_cold"] + mean["optimiser"],
        }
    return out


def floors(epochs: int) -> dict[str, float]:
    """Of one core: seconds of the optimiser, and of the products at their best and cold."""
    weights = [torch.randn(*shape) for shape in SHAPES]
    optimiser, gradients = AdamW(weights, LR), [torch.randn(*shape) for shape in SHAPES]
    out = {"optimiser": epochs * -(-ROWS // BATCH) * best(lambda: optimiser.move(gradients))}
    # Forward, gradient of weights, and gradient of inputs for all but the first layer.
    macs_per_row = 3 * PARAMETERS - WIDTH * HIDDEN
    for side, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x, w = torch.randn(BATCH, HIDDEN, dtype=dtype), torch.randn(HIDDEN, HIDDEN, dtype=dtype)
        rate = 2 * BATCH * HIDDEN * HIDDEN / best(partial(torch.mm, x, w))
        out |= {f"{side}_rate": rate, f"{side}_peak": epochs * ROWS * 2 * macs_per_row / rate}
        out[f"{side}_cold"] = epochs * sum(
            cold_products(min(BATCH, ROWS - first), dtype) for first in range(0, ROWS, BATCH)
        )
    return out


def cold_products(rows: int, dtype: torch.dtype) -> float:
    """Least seconds of the products of a step."""
    sets = [[torch.randn(*shape).to(dtype) for shape in SHAPES] for _ in range(WALKED)]
    scratch = torch.empty(HIDDEN * HIDDEN, dtype=dtype)
    turn = itertools.cycle(sets)
    inputs = [torch.randn(rows, inner).to(dtype) for inner, _ in SHAPES]
    gradients = [torch.randn(rows, out).to(dtype) for _, out in SHAPES]

    def products() -> None:
        weights = next(turn)
        for x, w in zip(inputs, weights, strict=True):
            torch.mm(x, w)
        for i in reversed(range(len(SHAPES))):
            if i:
                torch.mm(gradients[i], weights[i].t())
            of_weight = scratch[: weights[i].numel()].view_as(weights[i])
            torch.mm(inputs[i].t(), gradients[i], out=of_weight)

    return best(products)


def best(act: Callable[[], object]) -> float:
    """Least seconds of the core of many: the machine may be shared."""
    taken = []
    for _ in range(50):
        began = time.process_time()
        act()
        taken.append(time.process_time() - began)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--classes", type=int)
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    classes = max(2, args.classes or (2 if args.quick else 20))
    epochs = args.epochs or (5 if args.quick else 100)
    sides = {
        "loop_1_thread": timed("loop", 1, 1, classes, epochs),
        "loop_2_threads": timed("loop", 1, 2, classes, epochs),
        "raycl_fp32": timed("fp32", CORES, 1, classes, epochs),
        "raycl_bf16": timed("bf16", CORES, 1, classes, epochs),
    }
    loop = min((sides["loop_1_thread"], sides["loop_2_threads"]), key=lambda s: s["seconds"])
    floor = roofline(epochs)
    for side in ("fp32", "bf16"):
        for at in ("peak", "cold"):
            ours = sides[f"raycl_{side}"]["cpu_seconds_per_class"]
            floor[side][f"over_{at}"] = ours / floor[side][f"{at}_s"]
    out = {
        "name": "generator_fit",
        "classes": classes,
        "epochs": epochs,
        **sides,
        "ratio": loop["seconds"] / sides["raycl_fp32"]["seconds"],
        "ratio_bf16": loop["seconds"] / sides["raycl_bf16"]["seconds"],
        "roofline": floor,
        "machine": f"{os.cpu_count()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
