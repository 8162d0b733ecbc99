"""Text features of some classes while they are tuned, and how: three ways.

    still       t_c = e_c                          e: the unit text vectors
    residual    t_c = normalise(e_c + r_c)         r of the class's own, from zero
    adapter     t_c = normalise(TextEncoder(a photo of a {name of c}.; adapter))

The adapter is fresh for every task and thrown away with it: what stays is the features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor

from raycl.backbones.adapted_text import AdaptedText
from raycl.errors import ConfigError
from raycl.methods.method import Setting
from raycl.methods.parts.keys import columns, unit

TEMPLATE = "a photo of a {}."

Kind = Literal["still", "residual", "adapter"]


@dataclass(frozen=True, eq=False)
class TextBranch:
    """What moves, and the features as it stands now."""

    parameters: list[Tensor]
    features: Callable[[], Tensor]
    """(classes, width) unit vectors."""


def branch_of(text: Literal["residual", "adapter"] | None, setting: Setting) -> Kind:
    """The way that is meant; null is the adapter where there is a text tower."""
    encoder = setting.encoder
    if text is None:
        return "residual" if encoder is None else "adapter"
    if text == "adapter" and encoder is None:
        raise ConfigError(
            "a text adapter needs a text tower, and this stream's embeddings hold vectors only",
            got="method.text=adapter",
            do="use method.text=residual, or a stream of images",
        )
    return text


def begin_text(
    kind: Kind, classes: tuple[int, ...], bottleneck: int, task: int, setting: Setting
) -> TextBranch:
    """The branch of these classes before its first step in this task."""
    start = setting.text[columns(classes, setting.text)]
    match kind:
        case "still":
            return TextBranch([], lambda: start)
        case "residual":
            moved = torch.zeros_like(start).requires_grad_()
            return TextBranch([moved], lambda: unit(start + moved))
        case "adapter":
            assert setting.encoder is not None
            names = [TEMPLATE.format(setting.class_names[c]) for c in classes]
            adapted = AdaptedText(setting.encoder.text, names)
            parameters = adapted.begin(bottleneck, setting.generator("text adapter", task))
            return TextBranch(parameters, lambda: unit(adapted(parameters)).to(setting.device))
        case _:
            assert_never(kind)
