"""Batches for a trainer: raycl's replay buffer against the other ways to hold 100,000 latents.

Expectation, written before measuring: a batch of 256 x 512 in half precision is 256 KiB, which a
core copies from random rows in about 0.1 ms. From one pack that is what ours should cost too,
since views are not copies: at most 1.3 times a NumPy array in the trainer's own process, with a
little for handing over from the thread; from several packs each row is copied twice, so up to
twice that. A buffer behind one actor pays for a call, for pickling and for two copies more:
1 to 3 ms, ten times as much; TorchRL's `RayReplayBuffer` is such an actor and builds a TensorDict
besides. Two trainers that work 1 to 2 ms per batch should lose less than 10 % to each other, and
the node should hold the vectors once, however many read.
Fresh samples: a VAE's decoder costs 0.5 MFLOP per sample and layer, ten times as much as reading
one, so an epoch should be drawn beside the trainer and not before it. Where a core is idle, a
thread of the trainer is as good as a worker and copies less; workers win once there are many.

TorchRL is no dependency of raycl. Where it is not installed, `--torchrl FOLDER` names one made by
`pip install --no-deps --target FOLDER torchrl tensordict pyvers orjson importlib_metadata zipp`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import torch

from raycl.compute import Pool, limit_threads, ray_object_store
from raycl.compute.ray_session import connect
from raycl.config.generators import VAEGenerator
from raycl.generators.build import fit
from raycl.generators.vectors import ClassVectors
from raycl.replay.buffer import Handle, ReplayBuffer
from raycl.replay.sampled import Fitted, SampledReplay
from raycl.replay.sampling import Shuffled

ROWS, WIDTH, CLASSES, BATCH = 100_000, 512, 200, 256
PER_CLASS = ROWS // CLASSES
SAMPLES = 256
"""Of each class in an epoch of fresh samples, as published."""
MIB = 2**20
Batch = tuple[torch.Tensor, torch.Tensor]


def latents() -> tuple[Any, Any]:
    """Vectors and labels."""
    x = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float16)
    return x, np.repeat(np.arange(CLASSES), PER_CLASS)


def filled(pool: Pool, **options: Any) -> ReplayBuffer:
    """A sealed buffer of them."""
    x, _ = latents()
    buffer = ReplayBuffer(pool, **options)
    for c in range(CLASSES):
        buffer.add(c // 20, c, x[c * PER_CLASS : (c + 1) * PER_CLASS])
    return buffer.seal()


def numpy_batches(x: Any, y: Any, epochs: int) -> Iterator[Batch]:
    """What a user writes in one process."""
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(x))
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            yield torch.from_numpy(x[rows]), torch.from_numpy(y[rows])


class ActorBuffer:
    """All vectors in one actor; every batch is a call."""

    def __init__(self) -> None:
        limit_threads(1)
        self.x, self.y = latents()
        self.random = np.random.default_rng(0)

    def sample(self) -> tuple[Any, Any]:
        rows = self.random.integers(0, ROWS, BATCH)
        return self.x[rows], self.y[rows]


def actor_batches(actor: Any, count: int) -> Iterator[Batch]:
    """Two calls are under way while a batch is used."""
    import ray

    calls = deque(actor.sample.remote() for _ in range(2))
    for _ in range(count):
        x, y = ray.get(calls.popleft())
        calls.append(actor.sample.remote())
        yield torch.from_numpy(x.copy()), torch.from_numpy(y.copy())


def torchrl_batches(count: int) -> Callable[[], Iterator[Batch]] | str:
    """The same over TorchRL, or why not."""
    try:
        from tensordict import TensorDict
        from torchrl.data import LazyTensorStorage, RayReplayBuffer
    except ImportError as error:
        return f"not installed: {error}"
    try:
        buffer = RayReplayBuffer(
            storage=partial(LazyTensorStorage, ROWS),
            batch_size=BATCH,
            remote_config={"num_cpus": 0},
        )
        x, y = (torch.from_numpy(a) for a in latents())
        buffer.extend(TensorDict({"x": x, "y": y}, batch_size=[ROWS]))

        def draw() -> Iterator[Batch]:
            for _ in range(count):
                sample = buffer.sample()
                yield sample["x"], sample["y"]

        assert next(draw())[0].shape == (BATCH, WIDTH)
    except Exception as error:
        return f"does not work here: {type(error).__name__}: {str(error)[:300]}"
    return draw


class Trainer:
    """A linear classifier that learns from batches, in float32."""

    def __init__(self, hidden: int) -> None:
        limit_threads(1)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(WIDTH, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, CLASSES)
        )
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.01)

    def step(self, batch: Batch) -> None:
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.model(x.float()), y)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


class Reader:
    """A trainer in a process of its own."""

    def __init__(self, handle: Handle) -> None:
        from raycl.compute.ray_pool import RayPool

        self.trainer = Trainer(256)
        warm = torch.zeros(BATCH, WIDTH).half(), torch.zeros(BATCH, dtype=torch.int64)
        for _ in range(5):
            self.trainer.step(warm)
        self.before = own_bytes()
        self.buffer = ReplayBuffer.open(RayPool(workers=1), handle)
        self.own: Any = None

    def epoch(self, plain: bool) -> float:
        """Milliseconds per batch with its training step."""
        if plain and self.own is None:
            self.own = latents()
        return timed(
            lambda: (
                numpy_batches(*self.own, 1)
                if plain
                else self.buffer.batches(BATCH, Shuffled(), seed=0)
            ),
            self.trainer.step,
        )

    def waited(self) -> float:
        """Milliseconds per batch that the trainer has waited for."""
        metrics = self.buffer.metrics()
        return metrics.waited_seconds * 1e3 / metrics.batches

    def private_mib(self) -> float:
        """What reading has added to this process alone."""
        return (own_bytes() - self.before) / MIB


def own_bytes() -> int:
    """Memory of this process that is no file, the object store being one."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (anonymous,) = (line for line in lines if line.startswith("Anonymous:"))
    return int(anonymous.split()[1]) * 1024


def timed(batches: Callable[[], Iterator[Batch]], use: Callable[[Batch], None]) -> float:
    """Milliseconds per batch of one pass."""
    began, count = time.perf_counter(), 0
    for batch in batches():
        use(batch)
        count += 1
    return (time.perf_counter() - began) * 1e3 / count


def looked_at(batch: Batch) -> None:
    """The least that a trainer does."""
    assert len(batch[0]) == len(batch[1])


def medians(sides: dict[str, Callable[[], Iterator[Batch]]], rounds: int) -> dict[str, float]:
    """Milliseconds per batch; the sides take turns, so that all see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, batches in sides.items():
            times[name].append(timed(batches, looked_at))
    return {name: round(statistics.median(found[1:]), 4) for name, found in times.items()}


def gathering(pool: Pool, rounds: int, count: int) -> dict[str, Any]:
    """All ways to get a batch, with nothing done to it."""
    import ray

    x, y = latents()
    one, many = filled(pool), filled(pool, pack_bytes=16 * MIB)
    actor = ray.remote(ActorBuffer).options(num_cpus=0).remote()
    found = torchrl_batches(count)
    sides: dict[str, Callable[[], Iterator[Batch]]] = {
        "numpy": lambda: numpy_batches(x, y, 1),
        "raycl": lambda: one.batches(BATCH, Shuffled(), seed=0),
        "raycl_balanced": lambda: one.batches(BATCH, seed=0),
        "raycl_thread": lambda: one.batches(BATCH, Shuffled(), seed=0, prefetch=2),
        "raycl_7_packs": lambda: many.batches(BATCH, Shuffled(), seed=0),
        "one_actor": lambda: actor_batches(actor, count),
    }
    if not isinstance(found, str):
        sides["torchrl"] = found
    out: dict[str, Any] = dict(medians(sides, rounds))
    if isinstance(found, str):
        out["torchrl"] = found
    ray.kill(actor)
    return out


def sharing(pool: Pool, rounds: int) -> dict[str, Any]:
    """Two trainers at once, and the memory of it all."""
    import ray

    free = settled()
    buffer = filled(pool)
    handle = buffer.handle()
    actors = [ray.remote(Reader).options(num_cpus=0).remote(handle) for _ in range(2)]
    out: dict[str, Any] = {"vectors_mib": round(buffer.bytes / MIB, 1)}
    ray.get([actor.epoch.remote(False) for actor in actors])
    out["store_mib_with_2_readers"] = round((free - settled()) / MIB, 1)
    out["private_mib_per_reader"] = [
        round(ray.get(actor.private_mib.remote()), 1) for actor in actors
    ]
    for plain in (True, False):
        ray.get([actor.epoch.remote(plain) for actor in actors])
        alone, both = [], []
        for _ in range(rounds):
            alone += [ray.get(actor.epoch.remote(plain)) for actor in actors]
            both += ray.get([actor.epoch.remote(plain) for actor in actors])
        one, two = statistics.median(alone), statistics.median(both)
        side = "numpy" if plain else "raycl"
        out[side] = {
            "alone_ms": round(one, 3),
            "two_ms": round(two, 3),
            "lost": round(two / one - 1, 3),
        }
    out["raycl_waited_ms"] = [round(ray.get(actor.waited.remote()), 4) for actor in actors]
    for actor in actors:
        ray.kill(actor)
    return out


def settled() -> int:
    """Free bytes of the object store once the figure, which lags, stands still."""
    before = -1
    while True:
        time.sleep(1.2)
        free = ray_object_store.free_bytes() or 0
        if free == before:
            return free
        before = free


def sampling(pool: Pool, classes: int, epochs: int) -> dict[str, Any]:
    """Fresh samples of VAE decoders in each epoch: seconds per epoch with training steps."""
    spec = VAEGenerator(epochs=1)
    data = [ClassVectors(f"class {c}", torch.randn(64, WIDTH), c) for c in range(classes)]
    fitted = [Fitted(fit(spec, data), range(classes), range(classes))]
    stale = SampledReplay(fitted, SAMPLES, seed=0, task=0)
    kept = [(x.clone(), y.clone()) for x, y in stale.batches(BATCH, epochs=1)]
    out: dict[str, Any] = {"classes": classes, "epochs": epochs}
    sides: dict[str, tuple[dict[str, Any], int]] = {
        "before_each_epoch": ({"where": "trainer"}, 0),
        "thread_of_trainer": ({"where": "trainer"}, 2),
        "workers": ({"where": "workers", "pool": pool}, 2),
    }
    # A step as long as drawing its batch takes one core, and one much longer.
    for name, hidden in (("short_step", 512), ("long_step", 4096)):
        trainer = Trainer(hidden)
        alone = statistics.median(timed(lambda: iter(kept), trainer.step) for _ in range(3))
        out[name] = {"training_alone": round(alone * len(kept) / 1e3, 3)}
        for side, (options, prefetch) in sides.items():
            source = SampledReplay(fitted, SAMPLES, seed=0, task=0, **options)
            batches = source.batches(BATCH, epochs=epochs + 1, prefetch=prefetch)
            # The first epoch pays for processes that start.
            began = time.perf_counter()
            for _ in kept:
                trainer.step(next(batches))
            out[name][f"{side}_first"] = round(time.perf_counter() - began, 3)
            found = timed(partial(iter, batches), trainer.step)
            out[name][side] = round(found * len(kept) / 1e3, 3)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, 20 classes of samples")
    parser.add_argument("--torchrl", metavar="FOLDER", help="where TorchRL is installed")
    options = parser.parse_args()
    if options.torchrl:
        sys.path.append(str(Path(options.torchrl).resolve()))
    limit_threads(1)
    rounds = 3 if options.quick else 11
    from raycl.compute.ray_pool import RayPool

    with (
        tempfile.TemporaryDirectory() as home,
        connect(num_cpus=2, object_store_mib=1024),
        RayPool(workers=2) as pool,
    ):
        os.environ["HOME"] = home
        gather = gathering(pool, rounds, 200 if options.quick else ROWS // BATCH)
        shared = sharing(pool, rounds)
        fresh = sampling(pool, 20 if options.quick else CLASSES, 3 if options.quick else 6)
    ours = gather["raycl"]
    rivals = {n: gather[n] for n in ("one_actor", "torchrl") if not isinstance(gather[n], str)}
    print(
        json.dumps(
            {
                "name": "replay",
                "cpus": os.cpu_count(),
                "machine": platform.machine(),
                "batch": f"{BATCH}x{WIDTH} fp16 of {ROWS}",
                "ms_per_batch": gather,
                "ratio": round(ours / gather["numpy"], 2),
                "times_faster_than": {n: round(t / ours, 1) for n, t in rivals.items()},
                "two_trainers": shared,
                "fresh_samples_seconds_per_epoch": fresh,
            }
        )
    )


if __name__ == "__main__":
    main()
