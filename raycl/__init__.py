"""raycl: a Ray orchestrator of continual-learning experiments with CLIP.

    from raycl import Experiment, run

Names are imported when they are first used, so that `import raycl` is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raycl.compute.pool import WorkerSpec as WorkerSpec
    from raycl.config.execution import Execution as Execution
    from raycl.config.experiment import Experiment as Experiment
    from raycl.config.space import Space as Space
    from raycl.config.spec import Spec as Spec
    from raycl.engine.embedding import EmbedResult as EmbedResult
    from raycl.engine.embedding import embed as embed
    from raycl.engine.fitting import fit_generators as fit_generators
    from raycl.engine.run import RunResult as RunResult
    from raycl.engine.run import run as run
    from raycl.methods.context import Context as Context
    from raycl.methods.method import Method as Method
    from raycl.methods.method import Setting as Setting
    from raycl.replay.buffer import ReplayBuffer as ReplayBuffer
    from raycl.search.sweep import sweep as sweep
    from raycl.streams.stream import Task as Task

__version__ = "0.1.0.dev0"

_HOMES = {
    "Context": "raycl.methods.context",
    "EmbedResult": "raycl.engine.embedding",
    "Execution": "raycl.config.execution",
    "Experiment": "raycl.config.experiment",
    "Method": "raycl.methods.method",
    "ReplayBuffer": "raycl.replay.buffer",
    "RunResult": "raycl.engine.run",
    "Setting": "raycl.methods.method",
    "Space": "raycl.config.space",
    "Spec": "raycl.config.spec",
    "Task": "raycl.streams.stream",
    "WorkerSpec": "raycl.compute.pool",
    "embed": "raycl.engine.embedding",
    "fit_generators": "raycl.engine.fitting",
    "run": "raycl.engine.run",
    "sweep": "raycl.search.sweep",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raycl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
