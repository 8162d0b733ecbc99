"""32 trials of CGIL on Cars over alignment settings × two generators: shared work, or none.

Expectation, written before measuring: a trial fits 196 generators and aligns on them; with short
alignments the fits are nearly all of it. Shared, each is fitted once per setting: 2 × 196 fits in
place of 32 × 196. So the fits shrink sixteenfold, and the whole by what alignment leaves of that.

Both sides run one trial at a time in this process. The side without sharing gives every trial an
empty store but for the class vectors that all read; it is measured on some of the trials, evenly
chosen over both generators, and scaled to 32.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from raycl import Execution, Space, sweep
from raycl.config.space_files import experiment_of, space_of
from raycl.engine.run import run
from raycl.search.sweep import SweepOptions
from raycl.store.store import Store

RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
EPOCHS = (1, 2)


def made_space(quick: bool, epochs: int) -> Space:
    hidden = 128 if quick else 256
    vae: dict[str, Any] = {"kind": "vae", "hidden": hidden, "latent": 64, "epochs": epochs}
    stream = {
        "kind": "embeddings",
        "paths": ["$RAYCL_DATA/clip_vitb32/stanford_cars.npz"],
        "tasks": 2,
    }
    tree = {
        "base": {
            "method": {"kind": "cgil", "prompt": {"kind": "residual"}, "per_class": 16},
            "stream": stream,
        },
        "axes": {
            "method.generator": {
                "choice": [
                    vae,
                    {"kind": "gmm", "components": 3},
                ]
            },
            "method.align.lr": {"choice": list(RATES[:2] if quick else RATES)},
            "method.align.epochs": {"choice": list(EPOCHS)},
        },
    }
    return space_of(tree, "shared")


class Clock:
    """Seconds since it was made: on the wall, and of this process, which other work on the
    machine does not lengthen."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def spent(self, scale: float = 1.0) -> dict[str, float]:
        wall, cpu = time.monotonic() - self._wall, time.process_time() - self._cpu
        return {"seconds": wall * scale, "cpu_seconds": cpu * scale}


def shared(space: Space, folder: Path) -> dict[str, Any]:
    clock = Clock()
    answer = sweep(space, Execution(store=str(folder)), SweepOptions(test=False))
    spent = clock.spent()
    record = next(Store.open(str(folder)).records("result"))
    result = Store.open(str(folder)).read(record, only=("result.json",))["result.json"]
    classes = len(result["class_names"])
    fits = answer["computed"]["generator"]
    return {
        **spent,
        "trials": answer["trials"],
        "generator_fits": fits,
        "classes": classes,
        "fits_per_class": fits / classes,
        "generators_found": answer["reused"]["generator"],
    }


def alone(space: Space, folder: Path, measured: int) -> dict[str, Any]:
    """Trials with a store of their own, from one end of the grid to the other."""
    grid = list(space.grid())
    chosen = [grid[(2 * i + 1) * len(grid) // (2 * measured)] for i in range(measured)]
    fits, clock, scale = 0, Clock(), len(grid) / measured
    for number, params in enumerate(chosen):
        result = run(experiment_of(space, params, 0), Execution(store=str(folder / str(number))))
        fits += result.computed["generator"]
    return {"trials_measured": measured, **clock.spent(scale), "generator_fits": fits * scale}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--measured", type=int, default=4, help="32: all, nothing is scaled")
    parser.add_argument("--epochs", type=int, default=150, help="of the VAE")
    asked = parser.parse_args()
    space = made_space(asked.quick, 20 if asked.quick else asked.epochs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        without = alone(space, folder / "alone", 2 if asked.quick else asked.measured)
        with_sharing = shared(space, folder / "shared")
    out = {
        "name": "sweep_shared",
        "vae_epochs": 20 if asked.quick else asked.epochs,
        "shared": {n: round(v, 2) for n, v in with_sharing.items()},
        "an_empty_store_each": {n: round(v, 2) for n, v in without.items()},
        "ratio": round(without["seconds"] / with_sharing["seconds"], 2),
        "ratio_of_cpu_seconds": round(without["cpu_seconds"] / with_sharing["cpu_seconds"], 2),
        "machine": f"{os.cpu_count()} CPUs, Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
