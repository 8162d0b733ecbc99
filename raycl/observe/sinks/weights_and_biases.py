"""Weights & Biases: offline unless WANDB_MODE says otherwise; `wandb sync` uploads it later."""

from __future__ import annotations

import os
from typing import Any, Literal, cast

import wandb

from raycl.observe.sinks.sink import How, Numbers, Subject

PROJECT = "raycl"
FINAL = "final/"
_Mode = Literal["online", "offline", "disabled", "shared"]


class WeightsAndBiases:
    """A run whose id is the subject's, so that the same run is resumed."""

    def __init__(self, subject: Subject) -> None:
        subject.root.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=subject.id,
            resume="allow",
            name=subject.name,
            group=subject.group,
            config=dict(subject.config),
            dir=str(subject.root),
            mode=cast(_Mode, os.environ.get("WANDB_MODE", "offline")),
            reinit="create_new",  # trials of a sweep are told of at the same time
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, save_code=False
            ),
        )

    def tell(self, done: int, values: Numbers) -> None:
        self._run.log(dict(values), step=done)

    def close(self, done: int, finals: Numbers, how: How) -> None:
        summary = {FINAL + name: value for name, value in finals.items()}
        self._run.summary.update({**summary, "state": how})
        self._run.finish(exit_code=1 if how == "failed" else 0)
