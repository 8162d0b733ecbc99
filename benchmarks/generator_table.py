"""Every generator under one head: accuracy against seconds and bytes of state for each class.

`cars`: Stanford Cars (CLIP ViT-B/32, 16 crop-averaged vectors per class), 10 tasks, the class
order of the published seed 1992, keys of text plus a residual of each class's own. Only what is
replayed differs; real vectors at k = 1, 2, 4, 8, 16 stand beside the generators, and closed-form
methods below. Rate, epochs and draws of the head were chosen on the validation split of Cars, with
real vectors and the full Gaussian, and are the same in every row and on `text4` (the classes
with text of four sets, 306 in one label space, a task per set). `digits`, `glyphs`, `tiny-xtail`:
images through tiny-CLIP, prompts through its text tower.

Expectation, written before measuring: what counts is the spread's direction, so full > diagonal,
mean lowest; 16 vectors cannot teach a network of 10⁶ weights more than they say, so vae and
diffusion near the diagonal Gaussian at a hundred times its bytes; all real vectors on top. A
prototype had zero-shot 58.9, ncm 63.5, diagonal 65.4, full 74.7, real 75.7, joint 78.3.

Cars and text4 need the embeddings under $RAYCL_DATA/clip_vitb32. With --store a killed run goes
on where it was; --plot FILE draws accuracy over bytes. --quick: one seed, and networks fitted for
a few epochs only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
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
    TokenPrompt,
    ZeroShot,
)
from raycl.config.spec import described
from raycl.config.streams import (
    DigitsStream,
    EmbeddingsStream,
    GlyphsStream,
    StreamSpec,
    TinyXtailStream,
)
from raycl.observe.events import nobody
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store

SETS = {
    "cars": ("stanford_cars",),
    "text4": ("caltech101", "food101", "oxford_pets", "stanford_cars"),
}
IMAGES = {
    "digits": DigitsStream(tasks=5),
    "glyphs": GlyphsStream(),
    "tiny-xtail": TinyXtailStream(),
}
ORDER = 1992
EXEMPLARS = (1, 2, 4, 8, 16)
MIB = 2**20


def stream_of(on: str) -> StreamSpec | None:
    """None where its data is not at hand."""
    if on in IMAGES:
        return IMAGES[on]
    folder = Path(os.environ.get("RAYCL_DATA", "")) / "clip_vitb32"
    files = [folder / f"{name}.npz" for name in SETS[on]]
    if not all(file.is_file() for file in files):
        return None
    paths = tuple(str(file) for file in files)
    if on == "cars":
        return EmbeddingsStream(paths=paths, tasks=10, order_seed=ORDER)
    return EmbeddingsStream(paths=paths, classes="with_text")


def head(memory: GeneratorSpec, on: str) -> MethodSpec:
    """The one head, over whatever is replayed."""
    common: dict[str, Any] = {"align": AlignPrompts(epochs=10)}
    if on in SETS:
        common = {
            "align": AlignPrompts(lr=5e-4, epochs=10, batch=512),
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
        "diffusion": DiffusionGenerator(**({"steps": 100} if quick else {})),
        **{f"real, k = {k}": RealVectors(per_class=k) for k in EXEMPLARS},
    }


def rows(quick: bool, on: str) -> Iterator[tuple[str, MethodSpec]]:
    yield from ((name, head(memory, on)) for name, memory in generators(quick).items())
    yield "zero-shot", ZeroShot()
    yield "ncm", NCM()
    yield "slda", SLDA()
    yield "proto_fusion", ProtoFusion()
    yield "joint", Joint(align=Align(lr=1e-3, epochs=30, batch=128))
    if on in IMAGES:
        tokens = Align(lr=0.03, epochs=10, batch=128)
        yield "joint, tokens", Joint(align=tokens, prompt=TokenPrompt())


def measure(
    method: MethodSpec, stream: StreamSpec, seeds: list[int], execution: Execution
) -> dict[str, Any]:
    """Mean and deviation over seeds, which move the fit, the draws and the training; and the
    class order, where it is not given."""
    found = [
        run(Experiment(method=method, stream=stream, seed=seed), execution, nobody)
        for seed in seeds
    ]
    last = [float(result.metrics["last_pooled"]) for result in found]
    classes = len(found[0].values["class_names"])
    seconds = [result.values["seconds"] for result in found]
    return {
        "last": statistics.mean(last),
        "std": statistics.stdev(last) if len(last) > 1 else None,
        "bytes_a_class": kept_bytes(found[0], execution) / classes,
        "fit_s": statistics.mean(sum(v for k, v in s.items() if k == "fit") for s in seconds),
        "align_s": statistics.mean(sum(v for k, v in s.items() if k == "align") for s in seconds),
        **(fit_notes(method, found[0], execution) if isinstance(method, CGIL) else {}),
    }


def kept_bytes(result: RunResult, execution: Execution) -> float:
    """What stands for the classes after the last task; prompts are not counted, as real vectors
    need them just so."""
    store = Store.open(execution.store, nobody)
    wanted = result.values["experiment"]
    tensors: dict[str, int] = {}
    for record in store.records("state"):
        if record.described["experiment"] == wanted:
            state = store.read(record)["state.safetensors"]
            tensors |= {name: tensor.nbytes for name, tensor in state.items()}
    banks = [size for name, size in tensors.items() if name.startswith("generators.")]
    return float(sum(banks)) if banks else result.values["state_mib"] * MIB


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


def plot(found: dict[str, dict[str, Any]], on: str, path: Path) -> None:
    """Accuracy over bytes: generators as named points, real vectors as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    real = [row for name, row in found.items() if name.startswith("real, k")]
    points = {name: row for name, row in found.items() if "dispersion" in row}
    axes.plot(
        [row["bytes_a_class"] for row in real], [row["last"] for row in real],
        "o-", color="#777777", label="real vectors, k = 1, 2, 4, 8, 16",
    )  # fmt: skip
    colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
    marks = "s^vD*PX<>p"
    for i, (name, row) in enumerate(points.items()):
        axes.errorbar(
            row["bytes_a_class"], row["last"], yerr=row["std"] or 0.0, fmt=marks[i % len(marks)],
            color=colours[i % len(colours)], markersize=7, capsize=2, label=name,
        )  # fmt: skip
    for name, style in (("joint", "-"), ("zero-shot", ":"), ("ncm", "--")):
        if name in found:
            axes.axhline(found[name]["last"], color="#bbbbbb", linestyle=style, linewidth=1)
            axes.annotate(
                name, (1.0, found[name]["last"]), xycoords=("axes fraction", "data"),
                xytext=(3, 0), textcoords="offset points", va="center", fontsize=8, color="#666666",
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set(xlabel="bytes of state for each class", ylabel="accuracy after the last task, %")
    axes.set_title(f"What replay costs and what it brings: {on}", fontsize=10, loc="left")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right upper", fontsize=7.5, frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--on", default="cars", choices=(*SETS, *IMAGES))
    parser.add_argument("--store", help="keep results here, and use those that are")
    parser.add_argument("--pool", default="local", choices=("local", "ray"))
    parser.add_argument("--only", default="", help="rows whose name this expression finds")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    stream = stream_of(arguments.on)
    if stream is None:
        why = f"no embeddings of {arguments.on} under RAYCL_DATA"
        print(why, file=sys.stderr)
        print(json.dumps({"name": "generator_table", "skipped": why}))
        return
    seeds = [0] if arguments.quick else [0, 1, 2]
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(store=arguments.store or folder, pool=arguments.pool)
        for name, method in rows(arguments.quick, arguments.on):
            if re.search(arguments.only, name):
                found[name] = measure(method, stream, seeds, execution)
                print(table({name: found[name]}).splitlines()[1], file=sys.stderr, flush=True)
    print(table(found))
    if arguments.plot:
        plot(found, arguments.on, arguments.plot)
    out = {
        "name": "generator_table",
        "on": arguments.on,
        "seeds": len(seeds),
        "rows": found,
        "ratio": None,
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
