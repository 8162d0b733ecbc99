"""The jobs of a soak: every method, fits, sweeps, images and a replayed buffer, all of them small.

A job is a command line. Where it works (store, cluster, workers) is added by who runs it, and
what it leaves must not depend on that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raycl.config.methods import BUILT_IN, kind_of, parse_method
from raycl.config.space_files import space_of
from soaking import materials

Sort = Literal["run", "fit", "sweep", "synth", "replay"]
RAYCL = ("-m", "raycl")
WORKERS = 2


@dataclass(frozen=True)
class Job:
    """A command of the soak."""

    name: str
    sort: Sort
    words: tuple[str, ...]
    """Of Python: the program, and what it is asked."""
    pooled: bool = False
    """Whether workers of a pool have much to do for it."""
    out: Path | None = None
    """A folder that it writes beside the store."""

    def placed(self, store: Path, address: str) -> list[str]:
        """The whole command line on a cluster."""
        place = ["--store", str(store), "--address", address]
        workers = ["--workers", str(WORKERS)] if self.sort in ("run", "fit", "synth") else []
        return [*self.words, *place, *workers]


VAE = {"kind": "vae", "epochs": 150, "hidden": 16, "latent": 4, "batch": 16}
ALIGN = {"epochs": 60, "lr": 3e-3, "batch": 32}
SETTINGS: dict[str, dict[str, Any]] = {
    "cgil": {"generator": VAE, "per_class": 64, "align": ALIGN},
    "real_replay": {"align": ALIGN},
    "joint": {"align": {"epochs": 150, "batch": 8}},
    "finetune": {"align": {"epochs": 100, "batch": 8}},
    "dmc": {"text": {"epochs": 2, "per_class": 64}},
    "dmc_ot": {"text": {"epochs": 2, "per_class": 64}},
    "rail": {"hidden": 64},
    "ranpac": {"hidden": 64},
    "autoseed": {"hidden": 32, "noise": 8, "adapt": {"batch": 4}, "update": {"steps": 10}},
}
"""Budgets for a small set; of others, some seconds, so that a kill finds them at work."""
CLTS = (
    "stream.tasks=2",
    "backbone.batch=8",
    "method.captions.captioner.kind=attributes",
    "method.captions.captioner.slots=[ink,ground]",
    "method.captions.per_class=4",
    "method.captions.duplicates=keep",
    "method.images_per_caption=2",
    "method.synthesis.steps=2",
    "method.synthesis.chunk=4",
    "method.heads.least_steps=20",
    "method.router={kind: trained, least_steps: 20}",
)
QUICK = ("joint", "cgil", "sweep", "replay")


def made_jobs(folder: Path) -> list[Job]:
    """All of them, on materials that lie in the folder; their files are written there too.

    In the order of what a short soak should not be without.
    """
    replay = Job("replay", "replay", ("-m", "soaking.replaying"))
    jobs = [*_runs(folder), *_on_pictures(folder), *_fits(folder), *_sweeps(folder), replay]
    first = (*QUICK, "fit-vae", "clts", "synth", "search")
    return sorted(jobs, key=lambda job: first.index(job.name) if job.name in first else len(first))


def _stream(folder: Path) -> dict[str, Any]:
    return {"kind": "embeddings", "paths": [str(folder / materials.VECTORS)], "tasks": 3}


def _runs(folder: Path) -> list[Job]:
    jobs = []
    for kind in (kind_of(spec) for spec in BUILT_IN):
        if kind == "clts":
            continue
        method = {**parse_method(kind), **SETTINGS.get(kind, {})}
        file = _written(folder / f"{kind}.json", {"method": method, "stream": _stream(folder)})
        words = (*RAYCL, "run", "--config", file, "--json")
        jobs.append(Job(kind, "run", words, pooled=kind == "cgil"))
    return jobs


def _on_pictures(folder: Path) -> list[Job]:
    stream, painter = f"folder:{folder / materials.PICTURES}", folder / materials.PAINTER
    sets = [w for text in (*CLTS, f"method.synthesis.model={painter}") for w in ("--set", text)]
    prompts, out = folder / materials.PROMPTS, folder / "synth"
    synth = ("--prompts", str(prompts), "--model", str(painter), "--out", str(out))
    small = ("--set", "steps=2", "--set", "chunk=2", "--json")
    return [
        Job("ncm-pictures", "run", (*RAYCL, "run", "ncm", "--stream", stream, "--json")),
        Job("clts", "run", (*RAYCL, "run", "clts", "--stream", stream, *sets, "--json"), True),
        Job("synth", "synth", (*RAYCL, "synth", *synth, *small), True, out),
    ]


def _fits(folder: Path) -> list[Job]:
    data, jobs = str(folder / materials.VECTORS), []
    budgets = {"vae": ("--set", "epochs=100"), "diffusion": ("--set", "steps=100"), "gmm": ()}
    for kind, budget in budgets.items():
        out, name = folder / f"fit-{kind}", f"fit-{kind}"
        words = ("fit", "--embeddings", data, "--generator", kind, *budget, "--out", str(out))
        jobs.append(Job(name, "fit", (*RAYCL, *words, "--json"), True, out))
    return jobs


def _sweeps(folder: Path) -> list[Job]:
    """A grid with several trials at a time; a search that learns from each, with one."""
    shared = {"kind": "cgil", "generator": VAE, "per_class": 32, "align": ALIGN}
    grid = {
        "sampler": {"kind": "grid"},
        "concurrent": 2,
        "base": {"method": shared, "stream": _stream(folder)},
        "axes": {
            "method.align.lr": {"choice": [1e-3, 1e-2]},
            "method.generator.hidden": {"choice": [16, 32]},
        },
    }
    search = {
        "sampler": {"kind": "tpe", "startup": 2},
        "scheduler": {"kind": "task_rungs"},
        "samples": 5,
        "concurrent": 1,
        "base": {"method": {"kind": "slda"}, "stream": _stream(folder)},
        "axes": {"method.shrinkage": {"loguniform": [1e-3, 1.0]}},
    }
    jobs = []
    for name, tree in (("sweep", grid), ("search", search)):
        space = space_of(tree, name).model_dump(mode="json", by_alias=True)
        file = _written(folder / f"{name}.yaml", space)
        jobs.append(Job(name, "sweep", (*RAYCL, "sweep", file, "--json")))
    return jobs


def _written(file: Path, tree: dict[str, Any]) -> str:
    file.write_text(json.dumps(tree))
    return str(file)
