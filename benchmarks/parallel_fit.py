"""`fit_generators` on all cores, with store and supervision, against a plain loop over classes.

Expectation, written before measuring: what `generator_fit.py` finds for the arithmetic alone
(3.0 in fp32 and 3.5 in bf16 on two cores), less what stands between: an artefact takes some
milliseconds, a class some seconds, so within 5 %. The time of a class does not depend on how many
there are, up to 10,000; what a worker and the calling process hold beyond the vectors does not
either, because vectors travel in bounded shipments and generators do not travel at all.

The starting of Ray and of its workers, some ten seconds whatever the work, is told apart. A
shared machine may change its speed by half within a minute, so the classes are fitted in rounds
of a few in which all sides take their turn, and the ratio is the median of the rounds' own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.pool import Pool as Processes
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generator_fit import CORES, DRAWN, made_class, plain_one, processes, quality

from raycl.compute.pool import Pool
from raycl.compute.ray_pool import RayPool
from raycl.compute.ray_session import connect
from raycl.config.generators import GeneratorSpec, Precision, VAEGenerator
from raycl.fitting.parallel import fit_generators
from raycl.store.store import Store

SMALL = VAEGenerator(epochs=5, hidden=32, latent=8, batch=16)
"""So small that what surrounds a fit shows."""
SMALL_ROWS, SMALL_WIDTH = 20, 16


def ours(pool: Pool, precision: Precision, classes: range, epochs: int) -> dict[str, Any]:
    """Seconds of these classes, and the quality of each."""
    data = [made_class(c) for c in classes]
    spec = VAEGenerator(epochs=epochs, precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit_generators(
            {c.name: c.vectors for c in data}, spec, seed=0, store=Store.open(folder), pool=pool
        )
        assert fitted.computed == len(classes)
        samples = fitted.bank.sample(DRAWN, classes)
    found = [quality(x, c) for x, c in zip(samples, data, strict=True)]
    return {"seconds": fitted.seconds, "quality": found}


def loop(process: Processes, classes: range, epochs: int) -> dict[str, Any]:
    """The same of a plain loop, in a process of its own."""
    began = time.perf_counter()
    found = process.map(plain_one, [(c, epochs, "loop") for c in classes], chunksize=len(classes))
    return {"seconds": time.perf_counter() - began, "quality": [one[:2] for one in found]}


def in_turn(pool: Pool, per_round: int, rounds: int, epochs: int) -> dict[str, Any]:
    """All sides on the same classes, a few at a time, the order of the sides turning."""
    with processes(1, 1) as one, processes(1, 2) as two:
        sides: dict[str, Callable[[range, int], dict[str, Any]]] = {
            "loop_1_thread": partial(loop, one),
            "loop_2_threads": partial(loop, two),
            "raycl_fp32": partial(ours, pool, "fp32"),
            "raycl_bf16": partial(ours, pool, "bf16"),
        }
        for fit in sides.values():
            fit(range(2 * CORES), 1)  # so that each is warm
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number in range(rounds):
            names = list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]
            for name in names:
                classes = range(number * per_round, (number + 1) * per_round)
                found[name].append(sides[name](classes, epochs))
    seconds = {name: [one["seconds"] for one in side] for name, side in found.items()}
    loops = zip(seconds["loop_1_thread"], seconds["loop_2_threads"], strict=True)
    faster = [min(both) for both in loops]

    def ratio(base: list[float], side: str) -> float:
        return statistics.median(a / b for a, b in zip(base, seconds[side], strict=True))

    out: dict[str, Any] = {}
    for name, side in found.items():
        errors, ratios = zip(*(q for one in side for q in one["quality"]), strict=True)
        out[name] = {
            "seconds_per_class": [round(s / per_round, 3) for s in seconds[name]],
            "median": statistics.median(seconds[name]) / per_round,
            "class_mean_error": statistics.mean(errors),
            "std_ratio": statistics.mean(ratios),
        }
    for name in ("raycl_fp32", "raycl_bf16"):
        out[name]["against_1_thread"] = ratio(seconds["loop_1_thread"], name)
        out[name]["against_2_threads"] = ratio(seconds["loop_2_threads"], name)
        out[name]["against_the_faster"] = ratio(faster, name)
    return out


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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    rounds = 1 if args.quick else args.rounds
    per_round = max(CORES, (args.classes or (2 if args.quick else 20)) // rounds)
    epochs = args.epochs or (5 if args.quick else 50)
    counts = (20, 200) if args.quick else (100, 1000, 10_000)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    began = time.perf_counter()
    with connect(num_cpus=CORES) as _, RayPool(workers=CORES) as pool:
        ours(pool, "fp32", range(2 * CORES), 1)
        start = time.perf_counter() - began
        sides = in_turn(pool, per_round, rounds, epochs)
        sizes = [many(pool, count) for count in counts]
    out = {
        "name": "parallel_fit",
        "classes": per_round * rounds,
        "rounds": rounds,
        "epochs": epochs,
        **sides,
        "ratio": sides["raycl_fp32"]["against_the_faster"],
        "ratio_bf16": sides["raycl_bf16"]["against_the_faster"],
        "start_seconds": start,
        "many": sizes,
        "linear": sizes[-1]["ms_per_class"] / sizes[-2]["ms_per_class"],
        "machine": f"{os.cpu_count()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
