"""One VAE per class: raycl on all cores against a plain loop over the classes.

Expectation, written before measuring: on two cores 2 workers × 1.5 from the fused optimiser and
from memory that is not faulted in at every step, so 3.0 in fp32 and 3.5 in bf16, whose products
take half as long and whose optimiser takes the same; a second thread in the plain loop helps
little, as a product of 64 rows is too small to share. Quality must be equal within 2 %, as far as
the standard errors (`_se`) over so many classes can tell.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
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


def timed(side: str, workers: int, threads: int, classes: int, epochs: int) -> dict[str, Any]:
    """Seconds from the first class to the last; processes are started and warm before."""
    one = plain_one if side == "loop" else raycl_one
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
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


def roofline(epochs: int) -> dict[str, float]:
    """What one core could do at best: its products alone at the speed of a product alone, and
    its optimiser alone."""
    torch.set_num_threads(1)
    x, w = torch.randn(BATCH, HIDDEN), torch.randn(HIDDEN, HIDDEN)
    product = best(lambda: x @ w)
    shapes = [(WIDTH, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2 * LATENT),
              (LATENT, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, WIDTH)]  # fmt: skip
    parameters = [torch.randn(*shape).requires_grad_() for shape in shapes]
    optimiser, gradients = AdamW(parameters, LR), [torch.randn(*shape) for shape in shapes]
    step = best(lambda: optimiser.apply(gradients))
    macs = sum(a * b for a, b in shapes)
    # Forward, gradient of weights, and gradient of inputs for all but the first layer.
    macs_per_row = 3 * macs - WIDTH * HIDDEN
    rate = 2 * BATCH * HIDDEN * HIDDEN / product
    steps = epochs * -(-ROWS // BATCH)
    return {
        "gemm_gflops": rate / 1e9,
        "gemm_s_per_class": epochs * ROWS * 2 * macs_per_row / rate,
        "optimiser_s_per_class": steps * step,
        "optimiser_mb_per_step": 7 * 4 * macs / 1e6,
    }


def best(act: Any) -> float:
    """Least seconds of many: the machine may be shared."""
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
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
    at_best = floor["gemm_s_per_class"] + floor["optimiser_s_per_class"]
    ours = sides["raycl_fp32"]
    out = {
        "name": "generator_fit",
        "classes": classes,
        "epochs": epochs,
        **sides,
        "ratio": loop["seconds"] / ours["seconds"],
        "ratio_bf16": loop["seconds"] / sides["raycl_bf16"]["seconds"],
        "roofline": {
            **floor,
            "core_seconds_over_roofline": ours["cpu_seconds_per_class"] / at_best,
        },
        "machine": f"{os.cpu_count()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
