"""Images per second: a worker against a bare loop of diffusers, two workers against one, levers.

Expectation, written before measuring: beside the pipeline itself a chunk costs an artefact (some
milliseconds), lossless WebP and a digest, and gains the encoding of prompts that it has seen; so
at least 0.95 of the bare loop even on tiny-SD, whose pass is short, and 1.00 on a pipeline of the
size of Stable Diffusion 1.5. Two workers of one thread each share nothing but memory: 1.8 of one
or more where two cores are free. Steps are linear but for the text tower, the decoder and WebP.

Without `--size`, tiny-SD. `--size sd15` builds Stable Diffusion 1.5's architecture with random
weights (4 GB of disk and memory) and measures the ratio to the bare loop at few steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from raycl.compute.here import Here
from raycl.compute.ray_pool import RayPool
from raycl.compute.ray_session import connect
from raycl.compute.threads import limit_threads
from raycl.config.synthesis import Synthesis
from raycl.observe.events import Computed, Event
from raycl.store.store import Store
from raycl.synthesis.identity import chunks_of
from raycl.synthesis.models import model_digest, model_files
from raycl.synthesis.pipeline import Painter
from raycl.synthesis.prompts import Prompt
from raycl.synthesis.synthesise import synthesise
from raycl.synthesis.worker import ChunkPainter

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CPU = torch.device("cpu")


def made_prompts(count: int, first: int = 0) -> list[Prompt]:
    return [Prompt(f"a photo of a {WORDS[i % 10]}.", first + i) for i in range(count)]


def bare_loop(spec: Synthesis) -> Callable[[Sequence[Prompt]], Any]:
    """What a user of diffusers writes: the pipeline, its solver, and batches of prompts."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    folder = model_files(spec).folder
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)

    def images(prompts: Sequence[Prompt]) -> Any:
        return pipe(
            [p.text for p in prompts],
            num_inference_steps=spec.steps,
            guidance_scale=spec.guidance,
            height=spec.height,
            width=spec.width,
            generator=[torch.Generator().manual_seed(p.seed) for p in prompts],
        ).images

    return images


def against_bare(spec: Synthesis, rounds: int) -> dict[str, float]:
    """Seconds of a chunk: ours with store, WebP and digests, and the bare loop's, in turn."""
    bare = bare_loop(spec)
    with tempfile.TemporaryDirectory() as folder:
        worker = ChunkPainter(spec, model_digest(spec), folder, "cpu", Here())
        chunks = chunks_of(made_prompts(spec.chunk * (rounds + 1)), spec)
        ours, theirs = [], []
        for number, chunk in enumerate(chunks):
            sides = [
                (ours, lambda chunk=chunk: worker(chunk)),
                (theirs, lambda chunk=chunk: bare(chunk.prompts)),
            ]
            for side, call in sides if number % 2 else sides[::-1]:
                began = time.perf_counter()
                call()
                if number:  # the first warms both up
                    side.append(time.perf_counter() - began)
    mine, bares = statistics.median(ours), statistics.median(theirs)
    return {
        "chunk": spec.chunk,
        "ours_seconds": mine,
        "bare_seconds": bares,
        "ours_images_per_second": spec.chunk / mine,
        "bare_images_per_second": spec.chunk / bares,
        "ratio": bares / mine,
    }


def rate(spec: Synthesis, workers: int, chunks: int) -> float:
    """Images per second of a pool once all its workers are at work."""
    ends: list[float] = []

    def watch(event: Event) -> None:
        if isinstance(event, Computed):
            ends.append(time.perf_counter())

    prompts = made_prompts(spec.chunk * chunks, first=workers * 10**6)
    with tempfile.TemporaryDirectory() as folder, RayPool(workers=workers) as pool:
        synthesise(prompts, spec, store=Store.open(folder), pool=pool, observer=watch)
    warm = 2 * workers
    return spec.chunk * (len(ends) - warm - 1) / (ends[-1] - ends[warm])


def lever(spec: Synthesis, rounds: int, *, same: bool = True) -> float:
    """Milliseconds of an image; prompts that recur, or that are all new."""
    painter = Painter(spec, CPU)
    seconds = []
    for number in range(rounds + 1):
        seeds = list(range(number * spec.chunk, (number + 1) * spec.chunk))
        texts = [f"a photo of a {WORDS[s % 10]}{'' if same else f' {s}'}." for s in seeds]
        began = time.perf_counter()
        painter.paint(texts, seeds)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[1:]) / spec.chunk


def levers(spec: Synthesis, rounds: int, *, compiled: bool) -> dict[str, float]:
    changes: dict[str, dict[str, Any]] = {
        "as it is": {},
        "50 steps": {"steps": 50},
        "20 steps": {"steps": 20},
        "4 steps": {"steps": 4},
        "no guidance": {"guidance": 1.0},
        "chunk 1": {"chunk": 1},
        "chunk 8": {"chunk": 8},
        "chunk 64": {"chunk": 64},
        "bf16": {"dtype": "bf16"},
        "channels_last": {"channels_last": True},
    }
    if compiled:  # minutes
        changes["compiled"] = {"compile": True}
    found = {
        name: lever(spec.model_copy(update=change), rounds if "chunk" not in change else 2 * rounds)
        for name, change in changes.items()
    }
    found["prompts all new"] = lever(spec, rounds, same=False)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--size", choices=["sd15", "small"], help="random weights instead")
    parser.add_argument("--steps", type=int, default=2, help="with --size")
    parser.add_argument("--side", type=int, default=None, help="with --size: pixels, less than own")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    limit_threads(1)
    rounds = 3 if arguments.quick else 9
    told: dict[str, Any] = {"name": "synthesis"}
    with tempfile.TemporaryDirectory() as folder:
        spec = Synthesis()
        if arguments.size:
            from raycl.synthesis.random_models import write_random_pipeline

            write_random_pipeline(Path(folder), arguments.size)
            side = arguments.side
            spec = Synthesis(
                model=folder, steps=arguments.steps, guidance=7.5, chunk=1, height=side, width=side
            )
            told["size"] = arguments.size
            told["bare"] = against_bare(spec, 2)
        else:
            told["bare"] = against_bare(spec, rounds)
            told["levers_ms_per_image"] = levers(
                spec, 2 if arguments.quick else 5, compiled=not arguments.quick
            )
            count = 12 if arguments.quick else 40
            with connect(num_cpus=2):
                told["one_worker"] = rate(spec, 1, count // 2)
                told["two_workers"] = rate(spec, 2, count)
            told["two_against_one"] = told["two_workers"] / told["one_worker"]
    told["ratio"] = told["bare"]["ratio"]
    print(json.dumps(told))


if __name__ == "__main__":
    main()
