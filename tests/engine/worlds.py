"""A store, a small stream and a few methods: the world that engine tests live in."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from raycl.config.execution import Execution
from raycl.config.loading import load, parse_setting
from raycl.config.methods import parse_method
from raycl.engine.run import RunResult, run
from raycl.observe.events import Observer, nobody
from tests.streams.made_sets import arrays, save_npz

VOLATILE = ("seconds", "computed", "reused", "device")
"""What may differ between two runs that give the same numbers."""

SHORT = {
    "cgil": {
        "generator": {"kind": "vae", "epochs": 5, "hidden": 16, "latent": 4},
        "align": {"epochs": 10, "lr": 3e-3},
    },
    "real_replay": {"align": {"epochs": 10, "lr": 3e-3}},
}
"""Of methods whose own budgets are for large sets."""

POOLED = textwrap.dedent('''
    """Class means, computed by the workers of a pool: a method that uses the pool."""

    import torch

    from raycl import Method, Spec
    from raycl.compute import WorkerSpec


    class Mean:
        def __call__(self, item):
            c, rows = item
            return c, torch.from_numpy(rows).mean(dim=0).numpy()


    class Pooled(Method[Spec]):
        def __init__(self, spec, setting):
            super().__init__(spec, setting)
            self.mean = torch.zeros(setting.classes, setting.width)

        def learn(self, task, context):
            items = [(c, task.train.x[task.train.y == c].numpy()) for c in task.classes]
            for done in context.pool.map_unordered(WorkerSpec(Mean), items):
                c, mean = done.value
                self.mean[c] = torch.from_numpy(mean.copy())

        def seen_scores(self, x):
            return x @ self.mean[list(self.seen)].T

        def state(self):
            return {"mean": self.mean}

        def restore(self, state):
            self.mean = state["mean"].clone()
''')


class World:
    """One embedding set and one store in a temporary folder."""

    def __init__(self, folder: Path, **made: Any) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.data = save_npz(folder / "set.npz", arrays(**made))

    def run(
        self,
        method: str = "slda",
        *settings: str,
        observer: Observer = nobody,
        seed: int = 0,
        **execution: Any,
    ) -> RunResult:
        config = load(
            [
                {"method": {**parse_method(method), **SHORT.get(method, {})}, "seed": seed},
                {"stream": {"kind": "embeddings", "paths": [str(self.data)], "tasks": 3}},
                *(parse_setting(text) for text in settings),
            ]
        )
        place = Execution(**{"store": str(self.store), **execution})
        return run(config.experiment, place, observer)

    def pooled(self) -> str:
        """The file of a method that maps work over the pool."""
        file = self.folder / "pooled.py"
        file.write_text(POOLED)
        return str(file)


def numbers(result: RunResult) -> dict[str, Any]:
    """Everything of a result that must not depend on how it was computed."""
    return {name: v for name, v in result.values.items() if name not in VOLATILE}


def predictions_digests(store: Path) -> list[str]:
    """The checksums of all stored predictions and states, sorted."""
    from raycl.store.store import Store

    return sorted(
        payload.sha256
        for kind in ("predictions", "state")
        for record in Store.open(str(store)).records(kind)
        for name, payload in record.payloads.items()
        if not name.endswith(".json")
    )
