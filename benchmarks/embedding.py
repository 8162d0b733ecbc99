"""Embedding a folder of JPEGs: raycl against bare loops of DataLoader and open_clip.

The loops read, transform and encode and do nothing else: no store, no digests, no checks, no
resumption. The *usual* one has no workers, the *best* is the fastest over its workers and torch's
threads, found first in a round of its own. Model and images are the same on all sides and warm;
sides alternate, figures are medians of wall-clock and of CPU time (children's included).

Expectation, written before measuring: all sides decode and encode the same images, so with enough
cores for all the best loop and raycl end level. The usual loop decodes on one core, so where
decoding is the longer it takes as many times as long as there are cores, 2 on two. Where other
work holds the cores each side gets what its threads win: read the CPU time beside the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from raycl.backbones.encoder import Encoder, load_encoder
from raycl.compute.local_pool import LocalPool
from raycl.compute.pool import Pool
from raycl.config.backbones import Backbone
from raycl.config.seeds import rng
from raycl.config.streams import FolderStream
from raycl.embedding.features import embed
from raycl.store.store import Store

LARGE, PHOTOGRAPH = (1600, 1200), (500, 375)
WORKERS, THREADS = (0, 1, 2), (1, 2)


def save_photographs(root: Path, images: int, size: tuple[int, int]) -> FolderStream:
    """JPEGs of a photograph's smoothness and grain, in two classes."""
    width, height = size
    grain = rng(0, "grain").normal(0, 12, (height, width, 3))
    for i in range(images):
        coarse = rng(0, "photograph", i).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        pixels = np.clip(np.asarray(picture) + np.roll(grain, i, axis=1), 0, 255).astype(np.uint8)
        folder = root / ("train" if i % 4 else "test") / f"class {i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i:05}.jpg", quality=90)
    return FolderStream(paths=(str(root),))


class Files(Dataset[torch.Tensor]):
    """What everybody writes: open, convert, transform."""

    def __init__(self, root: Path, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths = sorted(root.rglob("*.jpg"))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as picture:
            return self.transform(picture.convert("RGB"))


def bare_loop(root: Path, encoder: Encoder, workers: int, threads: int) -> np.ndarray:
    """All vectors, by a loop of a DataLoader over open_clip's own model and transform."""
    torch.set_num_threads(threads)
    loader = DataLoader(
        Files(root, encoder._transform), batch_size=encoder.batch, num_workers=workers
    )
    with torch.inference_mode():
        found = [encoder._model.encode_image(pixels).float() for pixels in loader]
    return torch.cat(found).numpy()


class Sides:
    """The ways to embed one folder with one backbone."""

    def __init__(self, spec: FolderStream, backbone: Backbone, place: Path, pools: dict[str, Pool]):
        self.spec, self.backbone, self.place, self.pools = spec, backbone, place, pools
        self.root = Path(spec.paths[0])
        self.encoder = load_encoder(backbone, torch.device("cpu"))
        self.stores = 0

    def loop(self, workers: int, threads: int) -> Callable[[], np.ndarray]:
        return lambda: bare_loop(self.root, self.encoder, workers, threads)

    def raycl(self, pool: str) -> Callable[[], np.ndarray]:
        """Into a store that is new each time."""

        def run() -> np.ndarray:
            self.stores += 1
            store = Store.open(str(self.place / f"store-{self.stores}"))
            return embed(self.spec, self.backbone, store=store, pool=self.pools[pool]).x

        return run


def cost(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock and CPU seconds, those of ended children included."""
    began, before = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - began, cpu_seconds() - before


def cpu_seconds() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(sides: Sides, rounds: int) -> dict[str, Any]:
    """Milliseconds an image of each side, and the ratios that count."""
    images = len(list(sides.root.rglob("*.jpg")))
    usual_threads = len(os.sched_getaffinity(0))
    loops = {(w, t): sides.loop(w, t) for w in WORKERS for t in THREADS}
    tried = {key: cost(loop)[0] for key, loop in loops.items()}
    best = min(tried, key=tried.__getitem__)
    ways = {"usual": sides.loop(0, usual_threads), "best": loops[best]}
    ways |= {f"raycl, {name}": sides.raycl(name) for name in sides.pools}
    reference = ways["usual"]()
    differences = {name: float(np.abs(way() - reference).max()) for name, way in ways.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(cost(way))
    out: dict[str, Any] = {
        "images": images,
        "best_loop": {"workers": best[0], "threads": best[1]},
        "largest_difference": max(differences.values()),
    }
    for name, pairs in taken.items():
        wall, cpu = (statistics.median(part) for part in zip(*pairs, strict=True))
        out[name] = {"ms": 1000 * wall / images, "cpu_ms": 1000 * cpu / images}
    ours = min(out[name]["ms"] for name in ways if name.startswith("raycl"))
    return {
        **out,
        "best_over_raycl": out["best"]["ms"] / ours,
        "usual_over_raycl": out["usual"]["ms"] / ours,
    }


def ray_pool(stack: ExitStack) -> Pool:
    """Two workers on a Ray of this machine; its start is not counted."""
    from raycl.compute.ray_pool import RayPool
    from raycl.compute.ray_session import connect

    stack.enter_context(connect())
    return stack.enter_context(RayPool(workers=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ray", action="store_true", help="Also with two workers on Ray.")
    options = parser.parse_args()
    quick = options.quick
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Path(folder)
        pools: dict[str, Pool] = {"in process": stack.enter_context(LocalPool())}
        if options.ray:
            pools["two workers on Ray"] = ray_pool(stack)
        large = save_photographs(place / "large", 48 if quick else 128, LARGE)
        decode = Sides(large, Backbone(name="tiny-clip"), place / "a", pools)
        bound_by_decoding = measure(decode, 3 if quick else 5)
        few = save_photographs(place / "few", 16 if quick else 32, PHOTOGRAPH)
        encode = Sides(few, Backbone(name="ViT-B-32:random", batch=8), place / "b", pools)
        bound_by_encoding = measure(encode, 1 if quick else 3)
    out = {
        "name": "embedding",
        "bound_by_decoding": bound_by_decoding,
        "bound_by_encoding": bound_by_encoding,
        "ratio": bound_by_decoding["usual_over_raycl"],
        "machine": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
