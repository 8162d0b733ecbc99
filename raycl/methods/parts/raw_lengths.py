"""Vectors as the backbone gave them, or of length one: what a method is told to model.

Files of embeddings often hold unit vectors only. Whatever is fitted to those knows directions
and no lengths, which the result should say.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from raycl.methods.context import Context
from raycl.methods.parts.keys import unit
from raycl.observe.events import Warned
from raycl.streams.stream import Task

Input = Literal["raw", "unit"]
UNIT = 1e-2
"""How far a length may be from one in a file of half precision that holds unit vectors."""


def vectors_to_model(task: Task, wanted: Input, context: Context) -> Tensor:
    """The task's vectors; a warning in the first task where `raw` ones are of length one."""
    x = task.train.x
    if wanted == "unit":
        return unit(x)
    if task.index == 0 and len(x) and bool(((x.norm(dim=1) - 1).abs() < UNIT).all()):
        context.observer(
            Warned(
                "the vectors are of unit length already, so what is fitted to them knows "
                "directions only; method.input=unit says so in the result"
            )
        )
    return x
