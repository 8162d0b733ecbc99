"""Prompts that workers encode while they are trained: the same numbers, also where one dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.config.generators import GaussianGenerator
from raycl.config.methods import CGIL, AlignPrompts
from raycl.config.streams import FolderStream
from raycl.engine.run import run
from raycl.observe.events import Event, Progress, WorkerLost, nobody
from tests.embedding.made_images import save_folder
from tests.engine.processes import descendants
from tests.engine.worlds import numbers, predictions_digests


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_workers_encode_prompts_and_one_dies(tmp_path: Path) -> None:
    stream = FolderStream(paths=(str(save_folder(tmp_path / "pets")),), tasks=2)
    align = AlignPrompts(lr=0.03, epochs=40, batch=8)
    method = CGIL(generator=GaussianGenerator(), per_class=8, align=align)
    asked = Experiment(method=method, stream=stream)
    lost: list[str] = []

    def deadly(event: Event) -> None:
        if isinstance(event, WorkerLost):
            lost.append(event.worker)
        elif isinstance(event, Progress) and event.stage == "align" and not lost and not killed:
            below = [pid for pid, name in descendants(os.getpid()) if name.startswith("ray::Pool")]
            killed.append(below[0])
            os.kill(below[0], signal.SIGKILL)

    killed: list[int] = []
    here = run(asked, Execution(store=str(tmp_path / "here")), nobody)
    place = Execution(store=str(tmp_path / "there"), pool="ray", encodes="workers")
    there = run(asked, place, deadly)
    assert lost == ["_PromptWorker"]
    assert numbers(there) == numbers(here)
    assert predictions_digests(tmp_path / "there") == predictions_digests(tmp_path / "here")
