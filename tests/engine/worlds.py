"""A store, a small stream and a few methods: the world that engine tests live in."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raycl.config.execution import Execution
from raycl.config.loading import load, parse_setting
from raycl.config.methods import parse_method
from raycl.engine.run import RunResult, run
from raycl.observe.events import Computed, Event, Observer, WorkerLost, nobody
from raycl.store.store import Store
from tests.engine.processes import makers
from tests.fitting.made_fits import record_bytes, tensor_digests
from tests.streams.made_sets import arrays, save_npz

VOLATILE = ("seconds", "computed", "reused", "device")
"""What may differ between two runs that give the same numbers."""

SHORT = {
    "cgil": {
        "generator": {"kind": "vae", "epochs": 5, "hidden": 16, "latent": 4},
        "align": {"epochs": 10, "lr": 3e-3},
    },
    "real_replay": {"align": {"epochs": 10, "lr": 3e-3}},
    "dmc": {"text": {"epochs": 2, "per_class": 64}},
    "dmc_ot": {"text": {"epochs": 2, "per_class": 64}},
    "rail": {"hidden": 64},
    "autoseed": {"hidden": 32, "noise": 8, "adapt": {"batch": 4}, "update": {"steps": 10}},
    "ranpac": {"hidden": 64},
}
"""Of methods whose own budgets are for large sets."""

LASTING = (
    "method.generator.epochs=200",
    "method.per_class=64",
    "method.align.epochs=100",
    "method.align.batch=32",
)
"""Of `cgil`: fits and alignments of some tenths of a second, so that a kill finds them at work."""
LASTING_CLASSES, LASTING_TASKS = 6, 3

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
        config = load([self.asked(method, seed), *(parse_setting(text) for text in settings)])
        place = Execution(**{"store": str(self.store), **execution})
        return run(config.experiment, place, observer)

    def asked(self, method: str, seed: int = 0) -> dict[str, Any]:
        """What `run` asks for, before any setting."""
        return {
            "method": {**parse_method(method), **SHORT.get(method, {})},
            "stream": {"kind": "embeddings", "paths": [str(self.data)], "tasks": 3},
            "seed": seed,
        }

    def words(self, method: str, *settings: str) -> list[str]:
        """The same as arguments of the command line, to which a place is to be added."""
        file = self.folder / f"{method}.json"
        file.write_text(json.dumps(self.asked(method)))
        chosen = [word for text in settings for word in ("--set", text)]
        return ["run", "--config", str(file), *chosen, "--json"]

    def pooled(self) -> str:
        """The file of a method that maps work over the pool."""
        file = self.folder / "pooled.py"
        file.write_text(POOLED)
        return str(file)


def lasting_world(folder: Path) -> World:
    """For `LASTING`; the same data wherever it is made."""
    return World(folder, classes=LASTING_CLASSES, train=16, noise=1.0)


def numbers(result: RunResult) -> dict[str, Any]:
    """Everything of a result that must not depend on how it was computed."""
    return {name: v for name, v in result.values.items() if name not in VOLATILE}


def predictions_digests(store: Path) -> list[str]:
    """The checksums of all stored predictions and states, sorted."""
    return sorted(
        payload.sha256
        for kind in ("predictions", "state")
        for record in Store.open(str(store)).records(kind)
        for name, payload in record.payloads.items()
        if not name.endswith(".json")
    )


def states(store: Path) -> int:
    """After how many tasks there is a state."""
    return len(list(Store.open(str(store)).records("state")))


@dataclass(frozen=True)
class Whole:
    """All that a run leaves which must not depend on how it went."""

    values: dict[str, Any]
    predictions: list[str]
    generators: dict[str, str]

    @classmethod
    def of(cls, result: RunResult, store: Path) -> Whole:
        return cls(numbers(result), predictions_digests(store), tensor_digests(store))


@dataclass(frozen=True)
class Loss:
    """A kill: which generators were being made then, and which were there already."""

    making: list[str]
    stored: dict[str, str]
    told: int
    """Fits that the driver had heard of."""

    @classmethod
    def now(cls, store: Path, told: int) -> Loss:
        """To be taken while the victim is stopped."""
        return cls(sorted(makers(store, "generator")), _records(store), told)

    def check(self, store: Path, fitted: int, orphaned: int = 0) -> None:
        """What was stored was not made again; all else was, and once.

        `fitted` counts all fits that were told in the end. Whoever is `orphaned` by the kill may
        finish so many classes that nobody hears of.
        """
        self.check_stored(store)
        total = len(_records(store))
        least = self.told + total - len(self.stored) - orphaned
        assert least <= fitted <= total, f"{fitted} fits, of {total} classes {least} or more"

    def check_stored(self, store: Path) -> None:
        """What was stored was not made again."""
        after = _records(store)
        again = [key for key, record in self.stored.items() if after.get(key) != record]
        assert not again, f"made again: {again}"


def _records(store: Path) -> dict[str, str]:
    return {key: record.decode() for key, record in record_bytes(store).items()}


@dataclass
class Killer:
    """An observer that carries out one plan after the other, each once its moment is seen."""

    plans: list[Callable[[Event, int], Loss | None]]
    events: list[Event] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if self.plans and (loss := self.plans[0](event, self.fitted)) is not None:
            self.plans.pop(0)
            self.losses.append(loss)

    @property
    def fitted(self) -> int:
        """Generators that were told of as computed, over all lives of the learner."""
        return sum(isinstance(e, Computed) and e.kind == "generator" for e in self.events)

    @property
    def lost(self) -> list[str]:
        return [event.worker for event in self.events if isinstance(event, WorkerLost)]
