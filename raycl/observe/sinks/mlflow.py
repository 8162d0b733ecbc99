"""MLflow: a database in the folder of logs, or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from raycl.observe.sinks.sink import How, Numbers, Subject

# A server that does not answer costs a run seconds, not the library's own hours of retries.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

ID = "raycl.id"
FINAL = "final."
MOST_LETTERS = 500
"""Of a parameter's value, as the strictest of MLflow's stores wants it."""
ENDS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MLflow:
    """A run found again by a tag."""

    def __init__(self, subject: Subject) -> None:
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        self._client = MlflowClient(tracking_uri=_address(subject))
        experiment = self._experiment(subject.group)
        found = self._client.search_runs([experiment], f"tags.`{ID}` = '{subject.id}'")
        if found:
            self._run = found[0].info.run_id
            self._client.set_terminated(self._run, "RUNNING")
        else:
            self._run = self._begun(experiment, subject)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:  # another process was first
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _begun(self, experiment: str, subject: Subject) -> str:
        run = self._client.create_run(experiment, run_name=subject.name, tags={ID: subject.id})
        settings = subject.settings().items()
        params = [Param(name, str(value)[:MOST_LETTERS]) for name, value in settings]
        self._client.log_batch(run.info.run_id, params=params[:100])
        return str(run.info.run_id)

    def tell(self, done: int, values: Numbers) -> None:
        self._log(values, done)

    def close(self, done: int, finals: Numbers, how: How) -> None:
        self._log({FINAL + name: value for name, value in finals.items()}, done)
        self._client.set_terminated(self._run, ENDS[how])

    def _log(self, values: Numbers, step: int) -> None:
        at = int(time.time() * 1000)
        metrics = [Metric(name, value, at, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)


def _address(subject: Subject) -> Any:
    """None: what the environment says."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    subject.root.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{(subject.root / 'mlflow.db').absolute()}"
