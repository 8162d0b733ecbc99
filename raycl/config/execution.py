"""`Execution`: where and how an experiment runs. No key ever sees it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from raycl.config.spec import Spec

DEFAULT_STORE = "raycl-store"


class Learner(Spec):
    """What the one supervised actor that runs the engine holds on a cluster."""

    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)


class Worker(Spec):
    """What each worker of the Ray pool holds; with a GPU, it embeds images on it."""

    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)


class Execution(Spec):
    """The store, the pool and its workers, the device, and when to stop."""

    store: str = DEFAULT_STORE
    """A folder, or an s3:// or gs:// location that every node can reach."""
    pool: Literal["local", "ray"] = "local"
    """`local` works in this process; `ray` in actors, here or on a cluster."""
    address: str | None = None
    """A running Ray cluster, host:port; null starts one on this machine."""
    workers: int = Field(1, ge=1)
    worker: Worker = Worker()
    learner: Learner = Learner()
    draws: Literal["trainer", "workers"] = "trainer"
    """Who draws the samples of generators that are replayed: the process that trains, between
    two epochs (on a GPU ahead of them), or the pool's workers, ahead."""
    encodes: Literal["trainer", "workers"] = "trainer"
    """Who encodes prompts while they are trained: the process that trains, or the pool's
    workers, some prompts each. Worth it where a step takes longer than a tenth of a second."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Tools that a run, or each trial of a sweep, is told to as well."""
    stop_after: int | None = Field(None, ge=1)
    """Stop, resumably, once this many tasks of the stream are stored."""

    @model_validator(mode="after")
    def _gives_workers_one_thing_to_do(self) -> Execution:
        if self.draws == self.encodes == "workers":
            raise ValueError(
                "draws=workers and encodes=workers at once would have each wait for the other's "
                "workers: leave one of them to the trainer"
            )
        return self
