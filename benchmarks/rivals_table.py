"""The rivals of a new method on real embeddings: accuracy, bytes of state per class, seconds.

`cars`: Stanford Cars (CLIP ViT-B/32, 16 crop-averaged vectors per class), 10 tasks, the class
order of the published seed 1992. `text4`: the classes with text of four sets, 306 in one label
space, a task per set, in two orders; transfer, average and last are X-TAIL's. Options are the
defaults, or chosen on the validation split of Cars and then the same everywhere. Three seeds move
projections, draws, batches and the validation split.

Both need the embeddings under $RAYCL_DATA/clip_vitb32. With --store a killed run goes on where it
was. --quick: one seed on cars.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raycl import Execution, Experiment, run
from raycl.config.methods import NCM, SLDA, MethodSpec, ProtoFusion, ZeroShot
from raycl.config.rivals import (
    RAIL,
    RAPF,
    SLCA,
    FeCAM,
    LinearProbe,
    RanPAC,
    TipAdapter,
    WiSEFT,
)
from raycl.config.streams import EmbeddingsStream, StreamSpec
from raycl.observe.events import nobody

SETS: dict[str, tuple[str, ...]] = {
    "cars": ("stanford_cars",),
    "text4": ("caltech101", "food101", "oxford_pets", "stanford_cars"),
    "text4, order II": ("stanford_cars", "oxford_pets", "food101", "caltech101"),
}
ORDER = 1992
METRICS = ("last_pooled", "last_union", "transfer", "transfer_over_zero_shot", "average")


def stream_of(on: str) -> StreamSpec | None:
    """None where its data is not at hand."""
    folder = Path(os.environ.get("RAYCL_DATA", "")) / "clip_vitb32"
    files = [folder / f"{name}.npz" for name in SETS[on]]
    if not all(file.is_file() for file in files):
        return None
    paths = tuple(str(file) for file in files)
    if on == "cars":
        return EmbeddingsStream(paths=paths, tasks=10, order_seed=ORDER)
    return EmbeddingsStream(paths=paths, classes="with_text")


def rows() -> dict[str, MethodSpec]:
    return {
        "zero-shot": ZeroShot(),
        "ncm": NCM(unseen="gate"),
        "slda": SLDA(unseen="gate"),
        "proto_fusion": ProtoFusion(),
        "rail primal": RAIL(),
        "rail dual": RAIL(form="dual"),
        "rail primal, no text": RAIL(fusion="none"),
        "rail dual, no text": RAIL(form="dual", fusion="none"),
        "ranpac": RanPAC(unseen="gate"),
        "ranpac + text": RanPAC(fusion="text", unseen="gate"),
        "tip_adapter": TipAdapter(),
        "tip_adapter -F, task": TipAdapter(train="current"),
        "tip_adapter -F, all": TipAdapter(train="all"),
        "fecam": FeCAM(unseen="gate"),
        "fecam, shrinkage 100": FeCAM(shrinkage=100.0, unseen="gate"),
        "linear_probe, task": LinearProbe(data="task", unseen="gate"),
        "linear_probe, all": LinearProbe(unseen="gate"),
        "slca": SLCA(unseen="gate"),
        "wise_ft": WiSEFT(),
        "rapf": RAPF(),
    }


def measure(
    method: MethodSpec, stream: StreamSpec, seeds: Sequence[int], execution: Execution
) -> dict[str, Any]:
    """Mean and deviation over seeds of each metric."""
    found = [
        run(Experiment(method=method, stream=stream, seed=seed), execution, nobody)
        for seed in seeds
    ]
    out: dict[str, Any] = {}
    for name in METRICS:
        values = [result.metrics[name] for result in found]
        if None not in values:
            out[name] = statistics.mean(values)
            out[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
    classes = len(found[0].values["class_names"])
    out["bytes_a_class"] = found[0].values["state_mib"] * 2**20 / classes
    out["seconds"] = statistics.mean(sum(result.values["seconds"].values()) for result in found)
    return out


def table(found: dict[str, dict[str, Any]]) -> str:
    head = "".join(f"{name.replace('transfer_over_zero_shot', 'over zs'):>16}" for name in METRICS)
    lines = [f"{'':32}{head}{'bytes/class':>14}{'seconds':>9}"]
    for name, row in found.items():
        cells = "".join(f"{_cell(row, metric):>16}" for metric in METRICS)
        lines.append(f"{name:32}{cells}{row['bytes_a_class']:14,.0f}{row['seconds']:9.1f}")
    return "\n".join(lines)


def _cell(row: dict[str, Any], metric: str) -> str:
    if metric not in row:
        return "-"
    std = row[f"{metric}_std"]
    return f"{row[metric]:.1f}" + ("" if std is None else f" ± {std:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--on", default="cars", choices=tuple(SETS))
    parser.add_argument("--store", help="keep results here, and use those that are")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    arguments = parser.parse_args()
    stream = stream_of(arguments.on)
    if stream is None:
        why = f"no embeddings of {arguments.on} under RAYCL_DATA"
        print(why, file=sys.stderr)
        print(json.dumps({"name": "rivals_table", "skipped": why}))
        return
    seeds = [0] if arguments.quick else [0, 1, 2]
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(store=arguments.store or folder)
        for name, method in rows().items():
            if arguments.only in name:
                found[name] = measure(method, stream, seeds, execution)
                print(table({name: found[name]}).splitlines()[1], file=sys.stderr, flush=True)
    print(table(found))
    out = {
        "name": "rivals_table",
        "on": arguments.on,
        "seeds": len(seeds),
        "rows": found,
        "ratio": None,
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
