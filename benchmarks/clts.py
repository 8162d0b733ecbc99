"""CLTS on images through tiny-CLIP and tiny-SD, beside its controls; and what its memory takes.

`digits`: scikit-learn's handwritten digits, five tasks of two; `tiny-xtail`: five domains, a task
each. Three seeds. Rows: zero-shot, the naive fine-tuned router, CLTS as it ships, the same without
the shift (as published), with soft routing, other routers, one joint classifier of what is drawn,
the raw caption as the prompt, and as many stored real images in the captions' place. The oracle
is of the row's own heads.

`last` is the mean over tasks of the accuracy after the last one. `identity` is the largest gap
between the accuracy and Σ share · routed · head right if routed: rounding. --model names another
pipeline than tiny-SD. With --store a killed run goes on where it was. --quick: one seed, digits,
ten images a class, three rows.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import tempfile
import time
from typing import Any

import torch

from raycl import Execution, Experiment, run
from raycl.config.captions import AttributesCaptioner, Captioning
from raycl.config.clts import CLTS
from raycl.config.methods import MethodSpec, ZeroShot
from raycl.config.streams import DigitsStream, StreamSpec, TinyXtailStream
from raycl.config.synthesis import TINY_SD
from raycl.engine.captioning import caption
from raycl.observe.events import nobody

STREAMS: dict[str, StreamSpec] = {
    "digits": DigitsStream(tasks=5),
    "tiny-xtail": TinyXtailStream(),
}
QUICK = "^(zero-shot|naive router|clts)$"
SIDES = (32, 64)
"""At which the images of real captions are counted, next to their own size."""


def rows(model: str, quick: bool) -> dict[str, MethodSpec]:
    own: dict[str, Any] = {"synthesis": {"model": model}}
    if quick:
        own |= {"images_per_caption": 10}
    every = AttributesCaptioner()

    def clts(**changed: Any) -> CLTS:
        return CLTS.model_validate({**own, **changed})

    return {
        "zero-shot": ZeroShot(),
        "naive router": clts(router={"kind": "naive"}),
        "clts": clts(),
        "without shift, as published": clts(shift="none"),
        "shift of each task": clts(shift="task"),
        "soft routing": clts(routing="soft"),
        "ncm router": clts(router={"kind": "ncm"}),
        "energy router": clts(router={"kind": "energy"}),
        "joint classifier": clts(classifier="joint"),
        "raw caption": clts(template="{caption}"),
        "all attributes said": clts(captions=Captioning(captioner=every)),
        "half real images": clts(replay="mixed"),
        "real images": clts(replay="real"),
    }


def measure(method: MethodSpec, on: str, seeds: list[int], place: Execution) -> dict[str, Any]:
    found = [
        run(Experiment(method=method, stream=STREAMS[on], seed=s), place, nobody) for s in seeds
    ]
    last = [_last(result.values) for result in found]
    figures = [(result.values.get("figures") or [{}])[-1] for result in found]
    names = ("router_accuracy", "accuracy_oracle", "old_to_newest", "fair_to_newest")
    sizes = [name for name in figures[0] if name.endswith("_bytes")]
    return {
        "last": statistics.mean(last),
        "std": statistics.stdev(last) if len(last) > 1 else None,
        "each": last,
        **{name: _mean([f.get(name) for f in figures]) for name in (*names, *sizes)},
        "identity": max((_gap(f) for f in figures if "accuracy_hard" in f), default=None),
        "state_mib": statistics.mean(float(r.values["state_mib"]) for r in found),
    }


def _last(values: dict[str, Any]) -> float:
    """Zero-shot has one row: that of the union, which is what all classes seen are."""
    found = values["metrics"]["last_task_mean"]
    return float(found)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _gap(figures: dict[str, Any]) -> float:
    """Between the accuracy and the sum of its terms, in points."""
    summed, task = 0.0, 1
    while f"task_{task}.share" in figures:
        terms = [figures[f"task_{task}.{n}"] or 0.0 for n in ("share", "routed", "head_if_routed")]
        summed += terms[0] * terms[1] * terms[2] / 1e4
        task += 1
    return abs(summed - float(figures["accuracy_hard"]))


def memory(place: Execution) -> dict[str, Any]:
    """Captions of every training image that is captioned, against those images decoded."""
    out = {}
    for on, stream in STREAMS.items():
        for name, slots in (
            ("ink, ground", ("ink", "ground")),
            ("all", AttributesCaptioner().slots),
        ):
            said = Captioning.model_validate(
                {"captioner": {"kind": "attributes", "slots": slots}, "duplicates": "keep"}
            )
            made = caption(stream, said, execution=place)
            every = {f"{side}x{side}": 3 * side * side * made.images for side in SIDES}
            out[f"{on}: {name}"] = {
                "images": made.images,
                "caption_bytes": made.caption_bytes,
                "bytes_per_caption": made.caption_bytes / made.captions,
                "own_size": made.image_bytes / made.caption_bytes,
                **{size: total / made.caption_bytes for size, total in every.items()},
            }
    return out


def shown(value: float | None) -> str:
    return "    –" if value is None else f"{value:5.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--store", help="keep results here, and use those that are")
    parser.add_argument("--on", default="digits,tiny-xtail")
    parser.add_argument("--only", default="", help="rows whose name this expression finds")
    parser.add_argument("--model", default=TINY_SD)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [0] if arguments.quick else list(range(arguments.seeds))
    streams = ["digits"] if arguments.quick else arguments.on.split(",")
    chosen = QUICK if arguments.quick else arguments.only
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Execution(store=arguments.store or folder, pool="local")
        for on in streams:
            table = tables[on] = {}
            for name, method in rows(arguments.model, arguments.quick).items():
                if not re.search(chosen, name):
                    continue
                began = time.monotonic()
                table[name] = row = measure(method, on, seeds, place)
                print(
                    f"{on:10} {name:28} {row['last']:5.1f} ± {shown(row['std'])}  "
                    f"router {shown(row.get('router_accuracy'))}  "
                    f"oracle {shown(row.get('accuracy_oracle'))}  "
                    f"old to newest {shown(row.get('old_to_newest'))} (fair "
                    f"{shown(row.get('fair_to_newest'))})  {time.monotonic() - began:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
        sizes = {} if arguments.quick else memory(place)
    digits = tables.get("digits", {})
    ours, naive = (digits.get(name, {}).get("last") for name in ("clts", "naive router"))
    out = {
        "name": "clts",
        "clts": ours,
        "naive": naive,
        "ratio": ours / naive if ours and naive else None,
        "machine": platform.processor() or platform.machine(),
        "model": arguments.model,
        "quick": arguments.quick,
        "tables": tables,
        "memory": sizes,
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
