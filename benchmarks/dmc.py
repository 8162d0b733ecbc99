"""DMC and DMC-OT on images through tiny-CLIP, with every calibrator, where the encoder moves.

`digits`: scikit-learn's handwritten digits, five tasks of two; `tiny-xtail`: five domains, a task
each. Three seeds. `default`: the constants of the package. `moving`: five epochs of stage 1 at
three times the rate, so that statistics left where they were are wrong. `prompts without replay`
is the same shared context, trained on the task's images alone; with a token of each class's own
and a loss among the task's classes only it forgets less. The same on all data is the upper line
of prompts with a frozen encoder.

Expectation, written before measuring: DMC-OT ≥ DMC > prompts without replay; with the encoder
moving, `none` lowest of the calibrators, `ridge_paired` highest, since it alone uses pairs; the
transports between, weak on digits, where two classes say little of the eight others.

log BW² is the mean over tasks after the first; `error` the mean distance of replayed means of old
classes from those of the tests, as calibrated and as they came. With --store a killed run goes on
where it was. --quick: one seed, digits, fewer draws, three rows.
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
from raycl.config.dmc import (
    CALIBRATORS,
    DMC,
    DMCOT,
    NoCalibration,
    TextStage,
    VisionStage,
)
from raycl.config.methods import Align, Finetune, Joint, MethodSpec, TokenPrompt, ZeroShot
from raycl.config.streams import DigitsStream, StreamSpec, TinyXtailStream
from raycl.observe.events import nobody

STREAMS: dict[str, StreamSpec] = {
    "digits": DigitsStream(tasks=5),
    "tiny-xtail": TinyXtailStream(),
}
PER_CLASS = {"digits": 256, "tiny-xtail": 64}
"""tiny-xtail has ten times the classes: as long an epoch with fewer of each."""
MOVING = VisionStage(epochs=5, lr=3e-3)
QUICK = "^zero-shot$|^moving: dmc_ot, (none|ridge_paired)$"


def rows(on: str, quick: bool) -> dict[str, MethodSpec]:
    text = TextStage(per_class=32 if quick else PER_CLASS[on])
    shared, own = TokenPrompt(tokens=16, shared=True), Align(lr=0.01)
    found: dict[str, MethodSpec] = {
        "zero-shot": ZeroShot(),
        "prompts without replay": Finetune(prompt=shared, align=Align(lr=2e-3, epochs=5)),
        "own prompts without replay, local loss": Finetune(
            prompt=TokenPrompt(), loss="local", align=own
        ),
        "own prompts on all data, frozen encoder": Joint(prompt=TokenPrompt(), align=own),
    }
    for name, vision in (("default", VisionStage()), ("moving", MOVING)):
        found[f"{name}: dmc"] = DMC(text=text, vision=vision)
        for calibrator in CALIBRATORS:
            spec = DMCOT.model_validate(
                {"text": text, "vision": vision, "calibrator": {"kind": kind(calibrator)}}
            )
            found[f"{name}: dmc_ot, {kind(calibrator)}"] = spec
    frozen = VisionStage(epochs=0)
    found["frozen encoder: dmc"] = DMC(text=text, vision=frozen)
    found["frozen encoder: dmc_ot"] = DMCOT(text=text, vision=frozen)
    parts = {"calibrator": NoCalibration(), "task_prompts": False, "separability": 0.0}
    found["default: one context, monge_within"] = DMCOT(text=text, task_prompts=False)
    found["default: without the hinge"] = DMCOT(text=text, separability=0.0)
    found["default: dmc_ot with nothing of its own"] = DMCOT.model_validate({"text": text, **parts})
    for order in ("text_vision", "coupled"):
        found[f"default: dmc, {order}"] = DMC(text=text, order=order)
        found[f"default: dmc_ot, {order}"] = DMCOT(text=text, order=order)
    return found


def kind(calibrator: Any) -> str:
    return str(calibrator.model_fields["kind"].default)


def measure(method: MethodSpec, on: str, seeds: list[int], place: Execution) -> dict[str, Any]:
    last, recent, cpu, figures, state = [], [], [], [], 0.0
    for seed in seeds:
        began = time.process_time()
        result = run(Experiment(method=method, stream=STREAMS[on], seed=seed), place, nobody)
        cpu.append(time.process_time() - began)
        last.append(float(result.metrics["last_pooled"]))
        recent.append(float(result.metrics["predicted_recent"]))
        figures += result.values.get("figures", [])[1:]
        state = float(result.values["state_mib"])
    return {
        "last": statistics.mean(last),
        "std": statistics.stdev(last) if len(last) > 1 else None,
        "each": last,
        "predicted_recent": statistics.mean(recent),
        "log_bw2": mean_of(figures, "log_bw2"),
        "moved": mean_of(figures, "moved"),
        "error": mean_of(figures, "mean_error_old"),
        "error_uncalibrated": mean_of(figures, "mean_error_uncalibrated"),
        "error_new": mean_of(figures, "mean_error_new"),
        "state_mib": state,
        "cpu_s": statistics.mean(cpu),
    }


def mean_of(figures: list[dict[str, Any]], name: str) -> float | None:
    found = [entry[name] for entry in figures if entry.get(name) is not None]
    return statistics.mean(found) if found else None


def shown(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--store", help="keep results here, and use those that are")
    parser.add_argument("--on", default="digits,tiny-xtail")
    parser.add_argument("--only", default="", help="rows whose name this expression finds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [0] if arguments.quick else [0, 1, 2]
    streams = ["digits"] if arguments.quick else arguments.on.split(",")
    chosen = QUICK if arguments.quick else arguments.only
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Execution(store=arguments.store or folder, pool="local")
        for on in streams:
            table = tables[on] = {}
            for name, method in rows(on, arguments.quick).items():
                if not re.search(chosen, name):
                    continue
                table[name] = row = measure(method, on, seeds, place)
                print(
                    f"{on:10} {name:42} {row['last']:5.1f} ± {shown(row['std'], 1):4} "
                    f"recent {row['predicted_recent']:4.1f}  log BW² {shown(row['log_bw2'])}  "
                    f"error {shown(row['error'], 3)} of {shown(row['error_uncalibrated'], 3)}  "
                    f"{row['state_mib']:.2f} MiB {row['cpu_s']:.0f} s of CPU",
                    file=sys.stderr,
                    flush=True,
                )
    digits = tables.get("digits", {})
    ours, still = (digits.get(f"moving: dmc_ot, {n}", {}) for n in ("ridge_paired", "none"))
    out = {
        "name": "dmc",
        "dmc_ot_ridge": ours.get("last"),
        "dmc_ot_none": still.get("last"),
        "ratio": ours["last"] / still["last"] if ours and still else None,
        "machine": platform.processor() or platform.machine(),
        "quick": arguments.quick,
        "tables": tables,
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
