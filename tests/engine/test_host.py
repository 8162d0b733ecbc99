"""Work on a device goes where the GPU is: to the workers if they hold one, else here."""

from __future__ import annotations

import pytest
import torch

from raycl.compute.local_pool import LocalPool
from raycl.config.execution import Execution
from raycl.engine.host import near_the_gpu
from raycl.observe.events import Event


class Alone:
    def emit(self, event: Event) -> None: ...

    def stopping(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("here", "device", "gpus", "expected", "stays"),
    [
        (False, "auto", 0, "cpu", True),
        (True, "auto", 0, "cuda", False),
        (True, "cpu", 0, "cpu", True),
        (False, "auto", 1, "cuda", True),
        (True, "cpu", 1, "cpu", True),
    ],
)
def test_work_is_done_where_the_gpu_is(
    monkeypatch: pytest.MonkeyPatch,
    here: bool,
    device: str,
    gpus: float,
    expected: str,
    stays: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: here)
    execution = Execution.model_validate({"device": device, "worker": {"gpus": gpus}})
    pool = LocalPool()
    found, where, share = near_the_gpu(execution, Alone(), pool)
    assert (where, share.gpus, found is pool) == (expected, gpus, stays)
