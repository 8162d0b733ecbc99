"""Scales and the room that words take: the arithmetic of figures, without a canvas."""

from __future__ import annotations

import math
from collections.abc import Sequence

_NARROW, _WIDE = set("iljtfrI.,:;'|!()[]{} "), set("mwMW@%")


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`."""
    span = max(high - low, 1e-9)
    rough = span / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def percent_ticks(values: Sequence[float]) -> list[float]:
    """Ticks around percentages, within 0 to 100 unless a value is not."""
    low, high = min(values), max(values)
    if high - low < 5:
        low, high = low - 2.5, high + 2.5
    pad = (high - low) * 0.04
    return linear_ticks(max(low - pad, min(0.0, min(values))), min(high + pad, 100.0))


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks around two positive numbers: 1, 2 and 5 of each power of ten, or powers alone."""
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    wide = math.log10(high / low) > 2.2
    steps = [m * 10.0**e for e in range(first, last + 1) for m in ((1,) if wide else (1, 2, 5))]
    below = [step for step in steps if step <= low * 0.93][-1]
    above = next(step for step in steps if step >= high * 1.07)
    return [step for step in steps if below <= step <= above]


def thinned(count: int, at_most: int, first: int = 1) -> list[int]:
    """Indices to label of places numbered from `first`: those with round numbers, and both
    ends."""
    if count <= at_most:
        return list(range(count))
    step = next(s for s in _steps() if count / s <= at_most)
    near = step * 0.7
    inner = [i for i in range(count) if (first + i) % step == 0 and near <= i <= count - 1 - near]
    return [0, *inner, count - 1]


def _steps() -> list[int]:
    return [m * 10**e for e in range(9) for m in (1, 2, 5)]


def width_of(text: str, size: float = 12.0) -> float:
    """Roughly how wide a text is in a sans-serif font; rather too wide than too narrow."""
    ems = sum(
        0.33 if c in _NARROW else 0.92 if c in _WIDE else 0.69 if c.isupper() else
        1.05 if ord(c) > 0x2E80 else 0.58
        for c in text
    )  # fmt: skip
    return ems * size


def fitted(text: str, width: float, size: float = 12.0) -> str:
    """The text, or as much of it as fits, with an ellipsis."""
    text = " ".join(text.split())
    if width_of(text, size) <= width:
        return text
    while text and width_of(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float] | None:
    """Places near the wanted ones, `gap` apart and within the bounds; None if they do not fit."""
    if (len(wanted) - 1) * gap > high - low:
        return None
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    # Less the gaps, the places need only not fall: neighbours that would, share their mean.
    blocks: list[list[float]] = []  # mean, count
    for rank, i in enumerate(order):
        blocks.append([wanted[i] - rank * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, count = blocks.pop()
            before = blocks[-1]
            before[0] = (before[0] * before[1] + mean * count) / (before[1] + count)
            before[1] += count
    flat = [mean for mean, count in blocks for _ in range(int(count))]
    places = [0.0] * len(wanted)
    most = high - (len(wanted) - 1) * gap
    for rank, i in enumerate(order):
        places[i] = min(max(flat[rank], low), most) + rank * gap
    return places


def short(value: float) -> str:
    """A number for an axis or a bar: three digits, no exponent."""
    if value == 0:
        return "0"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.1g}" if text in ("0", "-0", "") else text
