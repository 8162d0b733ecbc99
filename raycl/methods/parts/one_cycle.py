"""One cycle of the learning rate, as a function of the step, so that nothing needs saving.

    lr/25 ─cosine up─► lr at 30 % of the steps ─cosine down─► lr/250,000 at the last step

The constants are those that torch's OneCycleLR has by default. Its momentum, which moves
against the rate, stays where it is here.
"""

from __future__ import annotations

import math

WARM_UP = 0.3
START, END = 1 / 25, 1 / 250_000
"""As parts of the highest rate."""


def one_cycle(step: int, steps: int) -> float:
    """The part of the highest rate that holds in a step, counted from zero."""
    peak, last = WARM_UP * steps - 1, steps - 1
    if step <= peak:
        return _cosine(START, 1.0, step / peak if peak > 0 else 1.0)
    return _cosine(1.0, END, (step - peak) / (last - peak))


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
