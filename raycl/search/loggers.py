"""Tune's own loggers, on request: TensorBoard, CSV, JSON, Weights & Biases, MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raycl.config.loading import suggest
from raycl.errors import ConfigError

KNOWN = ("tensorboard", "csv", "json", "wandb", "mlflow")


def loggers_of(names: Sequence[str], sweep: str) -> list[Any]:
    """The callbacks of these names; one whose package is missing is an error that says so."""
    return [_logger(name, sweep) for name in names]


def _logger(name: str, sweep: str) -> Any:
    try:
        match name:
            case "tensorboard":
                from ray.tune.logger import TBXLoggerCallback

                return TBXLoggerCallback()  # type: ignore[no-untyped-call]
            case "csv":
                from ray.tune.logger import CSVLoggerCallback

                return CSVLoggerCallback()  # type: ignore[no-untyped-call]
            case "json":
                from ray.tune.logger import JsonLoggerCallback

                return JsonLoggerCallback()  # type: ignore[no-untyped-call]
            case "wandb":
                from ray.air.integrations.wandb import WandbLoggerCallback

                return WandbLoggerCallback(project="raycl", group=sweep)
            case "mlflow":
                from ray.air.integrations.mlflow import MLflowLoggerCallback

                return MLflowLoggerCallback(experiment_name=f"raycl {sweep}")
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"the logger {name} needs a package that is not installed", do=str(error)
        ) from error
    raise ConfigError("no such logger", got=name, do=suggest(name, KNOWN))
