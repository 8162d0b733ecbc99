"""Which device the numbers are made on."""

from __future__ import annotations

import torch

from raycl.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """The device by name; `auto` takes a GPU where this process has one."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError(
            "execution.device is cuda, and this process sees no GPU",
            do="set execution.device=cpu, or execution.learner.gpus=1 on a cluster",
        )
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")
