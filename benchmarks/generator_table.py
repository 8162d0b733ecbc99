"""Every generator under one head: accuracy against seconds and bytes, on real CLIP vectors.

Stanford Cars (CLIP ViT-B/32, 16 crop-averaged vectors per class), 10 tasks, the class order of
the published seed 1992, keys of text plus a residual of each class's own. Only what is replayed
differs; real vectors at k = 1, 2, 4, 8, 16 stand beside the generators, and closed-form methods
below. Rate, epochs and draws of the head were chosen on the validation split, with real vectors
and the full Gaussian, and are the same in every row.

Expectation, written before measuring: what counts is the spread's direction, so full > diagonal,
mean lowest; 16 vectors cannot teach a network of 10⁶ weights more than they say, so vae and
diffusion near the diagonal Gaussian at a hundred times its bytes; all real vectors on top. A
prototype had zero-shot 58.9, ncm 63.5, diagonal 65.4, full 74.7, real 75.7, joint 78.3.

Needs the embeddings at $RAYCL_DATA/clip_vitb32/stanford_cars.npz. With --store a killed run goes
on where it was. --quick: one seed, and networks fitted for a few epochs only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raycl import Execution, Experiment, RunResult, run
from raycl.config.generators import (
    DiffusionGenerator,
    GaussianGenerator,
    GeneratorSpec,
    GMMGenerator,
    MeanGenerator,
    RealVectors,
    SharedVAEGenerator,
    VAEGenerator,
)
from raycl.config.methods import (
    CGIL,
    NCM,
    SLDA,
    Align,
    AlignPrompts,
    Joint,
    MappedResidual,
    MethodSpec,
    ProtoFusion,
    RealReplay,
    ZeroShot,
)
from raycl.config.spec import described
from raycl.config.streams import EmbeddingsStream
from raycl.observe.events import nobody
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store

DATA = "clip_vitb32/stanford_cars.npz"
ORDER = 1992
EXEMPLARS = (1, 2, 4, 8, 16)
MIB = 2**20
OWN_BYTES = 512 * 4 + 1
"""What a class keeps besides its generator: its residual, and that it is trained."""


def head(memory: GeneratorSpec) -> MethodSpec:
    """The one head, over whatever is replayed."""
    align = AlignPrompts(lr=5e-4, epochs=10, batch=512)
    common: dict[str, Any] = {
        "align": align,
        "per_class": 64,
        "input": "unit",
        "prompt": MappedResidual(),
    }
    if isinstance(memory, RealVectors):
        return RealReplay(memory=memory, **common)
    return CGIL(generator=memory, **common)


def generators(quick: bool) -> dict[str, GeneratorSpec]:
    short: dict[str, Any] = {"epochs": 20} if quick else {}
    return {
        "mean": MeanGenerator(),
        "gaussian diag": GaussianGenerator(),
        "gaussian full": GaussianGenerator(covariance="full"),
        "gaussian full fp16": GaussianGenerator(covariance="full", weights="fp16"),
        "gmm": GMMGenerator(),
        "vae": VAEGenerator(**short),
        "vae, residual noise": VAEGenerator(output_noise="residual", **short),
        "shared vae": SharedVAEGenerator(**short),
        "shared vae, residual noise": SharedVAEGenerator(output_noise="residual", **short),
        "diffusion": DiffusionGenerator(**({"steps": 100} if quick else {})),
        **{f"real, k = {k}": RealVectors(per_class=k) for k in EXEMPLARS},
    }


def rows(quick: bool) -> Iterator[tuple[str, MethodSpec]]:
    yield from ((name, head(memory)) for name, memory in generators(quick).items())
    yield "zero-shot", ZeroShot()
    yield "ncm", NCM()
    yield "slda", SLDA()
    yield "proto_fusion", ProtoFusion()
    yield "joint", Joint(align=Align(lr=1e-3, epochs=30, batch=128))


def measure(
    method: MethodSpec, data: Path, seeds: list[int], execution: Execution
) -> dict[str, Any]:
    """Mean and deviation over seeds, which move the fit, the draws and the training alone."""
    found = [
        run(
            Experiment(
                method=method,
                stream=EmbeddingsStream(paths=(str(data),), tasks=10, order_seed=ORDER),
                seed=seed,
            ),
            execution,
            nobody,
        )
        for seed in seeds
    ]
    last = [float(result.metrics["last_pooled"]) for result in found]
    classes = len(found[0].values["class_names"])
    state = found[0].values["state_mib"] * MIB / classes
    seconds = [result.values["seconds"] for result in found]
    replayed = isinstance(method, CGIL | RealReplay)
    return {
        "last": statistics.mean(last),
        "std": statistics.stdev(last) if len(last) > 1 else None,
        "bytes_a_class": state - OWN_BYTES if replayed else state,
        "fit_s": statistics.mean(sum(v for k, v in s.items() if k == "fit") for s in seconds),
        "align_s": statistics.mean(sum(v for k, v in s.items() if k == "align") for s in seconds),
        **(fit_notes(method, found[0], execution) if isinstance(method, CGIL) else {}),
    }


def fit_notes(method: CGIL, result: RunResult, execution: Execution) -> dict[str, Any]:
    """How wide the samples scatter beside the vectors that they were fitted to."""
    store = Store.open(execution.store, nobody)
    wanted, seed = described(method.generator), result.values["seeds"]["init"]
    ratios: list[float] = []
    for record in store.records("generator"):
        if record.described.get("generator") == wanted and record.described.get("seed") == seed:
            spec = ArtefactSpec(
                record.kind,
                record.name,
                record.identity,
                record.described,
                record.revision,
                record.parents,
            )
            notes = store.get(spec, only=("notes.json",)) or {"notes.json": {"classes": []}}
            found = (c["dispersion"] for c in notes["notes.json"]["classes"])
            ratios += [ratio for ratio in found if ratio is not None]
    return {"dispersion": statistics.mean(ratios) if ratios else None}


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = [f"{'':28} {'last':>6} {'±':>5} {'bytes/class':>12} {'fit s':>8} {'align s':>8}  std"]
    for name, row in found.items():
        std = "" if row["std"] is None else f"{row['std']:.1f}"
        ratio = row.get("dispersion")
        lines.append(
            f"{name:28} {row['last']:6.1f} {std:>5} {row['bytes_a_class']:12,.0f} "
            f"{row['fit_s']:8.1f} {row['align_s']:8.1f}  {'' if ratio is None else f'{ratio:.2f}'}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--store", help="keep results here, and use those that are")
    parser.add_argument("--pool", default="local", choices=("local", "ray"))
    parser.add_argument("--only", help="rows whose name holds this")
    arguments = parser.parse_args()
    data = Path(os.environ.get("RAYCL_DATA", "")) / DATA
    if not data.is_file():
        why = f"no {DATA} under RAYCL_DATA"
        print(why, file=sys.stderr)
        print(json.dumps({"name": "generator_table", "skipped": why}))
        return
    seeds = [0] if arguments.quick else [0, 1, 2]
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(store=arguments.store or folder, pool=arguments.pool)
        for name, method in rows(arguments.quick):
            if (arguments.only or "") in name:
                found[name] = measure(method, data, seeds, execution)
                print(table({name: found[name]}).splitlines()[1], file=sys.stderr, flush=True)
    print(table(found))
    out = {
        "name": "generator_table",
        "seeds": len(seeds),
        "order_seed": ORDER,
        "rows": found,
        "ratio": None,
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
