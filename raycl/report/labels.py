"""Names that are as short as they can be among those they stand beside.

A label is a method with its options, `cgil(align.epochs=10, per_class=64)`. Beside others, what
all labels of the same method say need not be said: alone on its board it is `cgil`. The short
names of different labels differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LABEL = re.compile(r"(?P<method>[\w./-]+)\((?P<options>.*)\)(?P<rest>[^)]*)", re.DOTALL)
_OPTION = re.compile(r"[\w.]+=.*", re.DOTALL)
_OPENING, _CLOSING = "([{", ")]}"


def shortened(labels: Sequence[str]) -> list[str]:
    """The labels without the options that all labels of the same method have."""
    parts = [_parts(label) for label in labels]
    common = {
        method: set.intersection(*(set(options) for name, options, _ in parts if name == method))
        for method in {name for name, _, _ in parts}
    }
    short = []
    for method, options, rest in parts:
        own = [option for option in options if option not in common[method]]
        short.append(method + (f"({', '.join(own)})" if own else "") + rest)
    return short if len(set(short)) == len(set(labels)) else list(labels)


def options_of(label: str) -> str:
    """What a label says besides the method."""
    _, options, rest = _parts(label)
    return ", ".join(options) + rest


def _parts(label: str) -> tuple[str, list[str], str]:
    """Method, options, and what stands behind them."""
    found = _LABEL.fullmatch(label)
    options = _options(found["options"]) if found else []
    if found is None or not all(map(_OPTION.fullmatch, options)):
        return label, [], ""
    return found["method"], options, found["rest"]


def _options(text: str) -> list[str]:
    """Options stand between commas, and their values may hold commas within brackets."""
    options, depth, begin = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in _OPENING) - (letter in _CLOSING)
        if letter == "," and not depth:
            options.append(text[begin:place].strip())
            begin = place + 1
    return [*options, text[begin:].strip()]
