"""Sweeps whose trials are real runs, on a small made set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raycl import Execution
from raycl.config.space import Space
from raycl.config.space_files import space_of
from raycl.search.ledger import open_ledger
from raycl.store.store import Store
from tests.streams.made_sets import arrays, save_npz


def stream(folder: Path) -> dict[str, Any]:
    """Three tasks, in a file that is written once."""
    data = folder / "set.npz"
    if not data.exists():
        save_npz(data, arrays(train=20, noise=1.0))
    return {"kind": "embeddings", "paths": [str(data)], "tasks": 3}


def real_space(folder: Path, **more: Any) -> Space:
    tree = {
        "base": {"method": {"kind": "slda"}, "stream": stream(folder)},
        "axes": {"method.shrinkage": {"loguniform": [1e-3, 1.0]}},
        "samples": 4,
        **more,
    }
    return space_of(tree, "real")


def fitting(folder: Path, name: str, **more: Any) -> Space:
    """Four trials of CGIL over two generators, which can be shared."""
    vae = {"kind": "vae", "epochs": 20, "hidden": 16, "latent": 4}
    method = {"kind": "cgil", "generator": vae, "per_class": 16}
    axes = {
        "method.align.lr": {"choice": [1e-3, 1e-2]},
        "method.align.epochs": {"constant": 2},
        "method.generator.hidden": {"choice": [16, 32]},
    }
    base = {"method": method, "stream": stream(folder)}
    return real_space(folder, base=base, axes=axes, samples=None, name=name, **more)


def lasting(folder: Path, trials: int = 2, epochs: int = 30) -> Space:
    """Trials of some seconds, so that a kill finds them at work."""
    base = {"method": {"kind": "joint", "align": {"batch": 8}}, "stream": stream(folder)}
    axes = {"method.align.epochs": {"choice": [epochs + 10 * i for i in range(trials)]}}
    return real_space(folder, base=base, axes=axes, samples=None)


def here(folder: Path) -> Execution:
    return Execution(store=str(folder / "store"))


def reported(folder: Path, name: str = "real") -> list[Any]:
    """What must be equal, however a sweep was driven: seconds aside."""
    ledger = open_ledger(Store.open(str(folder)), name)
    return [
        (t.name, t.state, {d: {**v, "seconds": 0.0} for d, v in t.reports.items()})
        for t in ledger.records.trials
    ]


def written(folder: Path, space: Space) -> str:
    """The space as a file that a command takes."""
    file = folder / f"{space.name}.yaml"
    file.write_text(json.dumps(space.model_dump(mode="json", by_alias=True)))
    return str(file)


def events(store: Path, kind: str) -> int:
    """How many events of a kind the journals hold."""
    found = (store / "journals").rglob("*.json")
    return sum(path.read_text().count(f'"event": "{kind}"') for path in found)
