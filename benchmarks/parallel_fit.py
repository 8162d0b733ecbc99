"""`fit_generators` on all cores, with store and supervision, against a plain loop over classes.

Expectation, written before measuring: what `generator_fit.py` finds for the arithmetic alone
(3.0 in fp32 and 3.5 in bf16 on two cores), less what stands between: an artefact takes some
milliseconds, a class some seconds, so within 5 %. The time of a class does not depend on how many
there are, up to 10,000; what a worker and the calling process hold beyond the vectors does not
either, because vectors travel in bounded shipments and generators do not travel at all.

The starting of Ray and of its workers, some ten seconds whatever the work, is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generator_fit import CORES, DRAWN, made_class, quality, timed

from raycl.compute.pool import Pool
from raycl.compute.ray_pool import RayPool
from raycl.compute.ray_session import connect
from raycl.config.generators import GeneratorSpec, Precision, VAEGenerator
from raycl.fitting.parallel import fit_generators
from raycl.store.store import Store

SMALL = VAEGenerator(epochs=5, hidden=32, latent=8, batch=16)
"""So small that what surrounds a fit shows."""
SMALL_ROWS, SMALL_WIDTH = 20, 16


def ours(pool: Pool, precision: Precision, classes: int, epochs: int) -> dict[str, float]:
    data = [made_class(c) for c in range(classes)]
    spec = VAEGenerator(epochs=epochs, precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit_generators(
            {c.name: c.vectors for c in data}, spec, seed=0, store=Store.open(folder), pool=pool
        )
        assert fitted.computed == classes
        samples = fitted.bank.sample(DRAWN, range(classes))
    found = [quality(x, c) for x, c in zip(samples, data, strict=True)]
    errors, ratios = zip(*found, strict=True)
    return {
        "seconds": fitted.seconds,
        "seconds_per_class": fitted.seconds / classes,
        "class_mean_error": statistics.mean(errors),
        "std_ratio": statistics.mean(ratios),
    }


def many(pool: Pool, classes: int) -> dict[str, float]:
    """Many small classes: seconds for each, and the most memory that any process has held."""
    random = np.random.default_rng(0)
    x = random.normal(size=(classes, SMALL_ROWS, SMALL_WIDTH)).astype(np.float32)
    named = {f"class {c}": rows for c, rows in enumerate(x)}
    with tempfile.TemporaryDirectory() as folder:
        first = _small(named, SMALL, folder, pool)
        again = _small(named, SMALL, folder, pool)
    assert (first.computed, again.reused) == (classes, classes)
    return {
        "classes": classes,
        "ms_per_class": 1e3 * first.seconds / classes,
        "ms_per_class_found": 1e3 * again.seconds / classes,
        "vectors_mib": x.nbytes / 2**20,
        "caller_mib": peak_mib(os.getpid()),
        "worker_mib": max(peak_mib(pid) for pid in workers()),
    }


def _small(named: dict[str, Any], spec: GeneratorSpec, folder: str, pool: Pool) -> Any:
    return fit_generators(named, spec, seed=0, store=Store.open(folder), pool=pool)


def peak_mib(pid: int) -> float:
    """The most memory a process has held so far (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return float(line.split()[1]) / 1024
    return float("nan")


def workers() -> list[int]:
    """The processes of this user's pool workers below this process."""
    parents: dict[int, int] = {}
    named: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, title = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        if title.startswith(b"ray::PoolWorker"):
            named.add(int(folder.name))
    return [pid for pid in named if os.getpid() in _above(pid, parents)]


def _above(pid: int, parents: dict[int, int]) -> set[int]:
    out: set[int] = set()
    while pid in parents and pid not in out:
        out.add(pid)
        pid = parents[pid]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--classes", type=int)
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    classes = args.classes or (2 if args.quick else 20)
    epochs = args.epochs or (5 if args.quick else 100)
    counts = (20, 200) if args.quick else (100, 1000, 10_000)
    sides = {
        "loop_1_thread": timed("loop", 1, 1, classes, epochs),
        "loop_2_threads": timed("loop", 1, 2, classes, epochs),
    }
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    began = time.perf_counter()
    with connect(num_cpus=CORES) as _, RayPool(workers=CORES) as pool:
        ours(pool, "fp32", 2 * CORES, 1)
        start = time.perf_counter() - began
        sides["raycl_fp32"] = ours(pool, "fp32", classes, epochs)
        sides["raycl_bf16"] = ours(pool, "bf16", classes, epochs)
        sizes = [many(pool, count) for count in counts]
    loop = min((sides["loop_1_thread"], sides["loop_2_threads"]), key=lambda s: s["seconds"])
    out = {
        "name": "parallel_fit",
        "classes": classes,
        "epochs": epochs,
        **sides,
        "ratio": loop["seconds"] / sides["raycl_fp32"]["seconds"],
        "ratio_bf16": loop["seconds"] / sides["raycl_bf16"]["seconds"],
        "start_seconds": start,
        "many": sizes,
        "linear": sizes[-1]["ms_per_class"] / sizes[-2]["ms_per_class"],
        "machine": f"{os.cpu_count()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
