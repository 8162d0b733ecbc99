"""What a run and its parts are called in the store. Needs no torch, opens no data.

A key is made of the experiment's identity, the digests of the data files and of a user's
method source. Where and on how many workers it runs is in none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from raycl.config.experiment import Experiment
from raycl.config.methods import UserMethod
from raycl.config.spec import Json, described, digest, identity
from raycl.methods.source_code import SourceCode, read_source_code
from raycl.store.artefact import ArtefactSpec
from raycl.streams.content import content_digests

LOOP_REVISION = 1
"""Raised when the task loop, the splitting or a shared part computes something else."""

METRICS_REVISION = 1
"""Raised when a metric's definition or the result's layout changes; nothing is retrained."""


@dataclass(frozen=True)
class RunIdentity:
    """The names of a run's artefacts."""

    experiment: Experiment
    """With all seeds resolved."""
    contents: tuple[str, ...]
    """Digests of the data files, in order."""
    code: SourceCode | None = None

    @classmethod
    def of(cls, experiment: Experiment, code: SourceCode | None = None) -> RunIdentity:
        """Reads the digests of data and method source; both must exist."""
        if code is None and isinstance(experiment.method, UserMethod):
            code = read_source_code(experiment.method.target)
        return cls(experiment.resolved(), content_digests(experiment.stream), code)

    @cached_property
    def parents(self) -> tuple[str, ...]:
        return self.contents + ((self.code.digest,) if self.code else ())

    @cached_property
    def setting(self) -> str:
        """The digest of all but the seeds: runs that share it may be averaged."""
        full = self.experiment
        stream = full.stream.model_copy(update={"order_seed": None, "shot_seed": None})
        validation = full.validation.model_copy(update={"seed": None})
        seedless = full.model_copy(
            update={"stream": stream, "validation": validation, "init_seed": None}
        )
        return digest([identity(seedless), list(self.parents)])

    @property
    def name(self) -> str:
        """Readable, and made of nothing that is not in the identity."""
        full = self.experiment
        return f"{full.method.kind}-{full.stream.kind}-seed{self.experiment.seeds['order']}"

    @property
    def result(self) -> ArtefactSpec:
        return self._spec("result", {"metrics_revision": METRICS_REVISION})

    def state(self, task: int) -> ArtefactSpec:
        """What the method keeps after a task."""
        return self._spec("state", {"task": task})

    def predictions(self, stage: int) -> ArtefactSpec:
        """Every test sample as predicted after a task."""
        return self._spec("predictions", {"stage": stage})

    def partial(self, task: int, stage: str) -> ArtefactSpec:
        """A loop within a task, as far as it came."""
        return self._spec("partial", {"task": task, "stage": stage})

    @property
    def zero_shot(self) -> ArtefactSpec:
        """Predictions of the bare backbone: every method on this stream shares them."""
        full = self.experiment
        return ArtefactSpec(
            kind="predictions",
            name=f"zero-shot-{full.stream.kind}-seed{full.seeds['order']}",
            identity={"stream": identity(full.stream), "backbone": identity(full.backbone)},
            described={"stream": described(full.stream), "backbone": described(full.backbone)},
            revision=LOOP_REVISION,
            parents=self.contents,
        )

    def _spec(self, kind: str, part: dict[str, Json]) -> ArtefactSpec:
        return ArtefactSpec(
            kind=kind,
            name=self.name,
            identity={"experiment": identity(self.experiment), **part},
            described={"experiment": described(self.experiment), **part},
            revision=LOOP_REVISION,
            parents=self.parents,
        )
