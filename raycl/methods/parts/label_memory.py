"""A memory of a few centres per class, read by closeness.

    m_c(x) = Σ_l exp(-β (1 - W_{c,l} · x))

The sum over a class's centres is taken over neighbours in memory, never as a product with a
one-hot matrix: at 10,000 classes that alone would be 6.4 GB. Guarantees: exact, also for the
gradient; memory does not grow with rows × centres, since the closenesses are made a few classes
at a time and again for the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

CLOSENESSES = 1 << 20
"""Held at once, 4 MiB: what a core's cache can still pass from the product to the sum."""


@dataclass(frozen=True, eq=False)
class Centres:
    """Of some classes, as many places for each."""

    rows: Tensor
    """(classes, places, width)"""
    sizes: Tensor
    """(classes) how many places a class uses, the first ones."""

    def scores(self, x: Tensor, beta: float) -> Tensor:
        """(n, classes) of unit vectors; gradients reach the rows."""
        scores: Tensor = _Read.apply(x, self.rows, self._missing, beta)
        return scores

    def with_rows(self, rows: Tensor) -> Centres:
        """The same places, filled otherwise."""
        return Centres(rows, self.sizes)

    @cached_property
    def _missing(self) -> Tensor:
        """(classes, places) zero where there is a centre, -inf where there is none."""
        places = torch.arange(self.rows.shape[1], device=self.sizes.device)
        out = torch.zeros(self.rows.shape[:2], device=self.sizes.device)
        return out.masked_fill(places >= self.sizes[:, None], float("-inf"))


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, missing: Tensor, beta: float) -> Tensor:
        out, parts = x.new_empty(len(x), len(rows)), _parts(len(x), rows)
        for part in parts:
            close = _closeness(x, rows[part], missing[part], beta)
            out[:, part] = close.sum(dim=2)
        ctx.beta, ctx.parts = beta, parts
        # What is small enough to be made at once is not made again.
        ctx.save_for_backward(x, rows, missing, close if len(parts) == 1 else None)
        return out

    @staticmethod
    def backward(ctx: Any, wanted: Tensor) -> tuple[None, Tensor, None, None]:
        x, rows, missing, close = ctx.saved_tensors
        out = torch.empty_like(rows)
        for part in ctx.parts:
            if close is None or len(ctx.parts) > 1:
                close = _closeness(x, rows[part], missing[part], ctx.beta)
            pull = (close * (ctx.beta * wanted[:, part, None])).flatten(1)
            torch.mm(pull.T, x, out=out[part].flatten(0, 1))
        return None, out, None, None


def _parts(n: int, rows: Tensor) -> list[slice]:
    classes, places = rows.shape[:2]
    step = max(1, CLOSENESSES // max(1, n * places))
    return [slice(start, start + step) for start in range(0, classes, step)]


def _closeness(x: Tensor, rows: Tensor, missing: Tensor, beta: float) -> Tensor:
    """(n, classes, places) exp(-β (1 - W · x)), zero where there is no centre."""
    close = torch.addmm(missing.flatten() - beta, x, rows.flatten(0, 1).T, alpha=beta)
    return close.exp_().view(len(x), *rows.shape[:2])
