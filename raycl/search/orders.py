"""What a trial's process is told: its experiment, where it works, how far it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raycl.config.execution import Execution, Worker
from raycl.config.experiment import Experiment
from raycl.config.space import TaskRungs
from raycl.config.space_files import experiment_of
from raycl.engine.paths import absolute_store, with_absolute_paths
from raycl.search.conductor import Conductor
from raycl.search.records import Trial
from raycl.search.trial_run import Order


@dataclass(frozen=True)
class OrderBook:
    """Writes the orders of one sweep."""

    conductor: Conductor
    execution: Execution

    def order(self, trial: Trial) -> Order:
        """The order of a trial, fit for a process in another folder."""
        experiment = with_absolute_paths(self.experiment(trial))
        return Order(
            trial.name,
            experiment.model_dump(mode="json"),
            self._place().model_dump(mode="json"),
            self.conductor.records.limit,
            trial.done,
            self._rungs(trial),
            tuple(sorted(trial.went_on)),
        )

    def _rungs(self, trial: Trial) -> dict[str, Any] | None:
        scheduler = self.conductor.space.scheduler
        races = isinstance(scheduler, TaskRungs) and trial.place == 0
        return scheduler.model_dump(mode="json") if races else None

    def experiment(self, trial: Trial) -> Experiment:
        sample = self.conductor.records.samples[trial.sample]
        return experiment_of(self.conductor.space, sample.params, trial.seed)

    def _place(self) -> Execution:
        """Workers of its own come from the trial's share, in Ray; else all is in its process."""
        resources = self.conductor.space.resources
        pooled = resources.workers > 0 and self.execution.pool == "ray"
        return self.execution.model_copy(
            update={
                "store": absolute_store(self.execution.store),
                "pool": "ray" if pooled else "local",
                "workers": resources.workers if pooled else 1,
                "worker": Worker(cpus=resources.worker_cpus, gpus=resources.worker_gpus),
                "address": None,
                "log_to": (),  # whoever drives tells of its trials
            }
        )
