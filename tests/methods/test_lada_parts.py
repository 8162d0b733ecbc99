"""The parts of LADA: a memory read by groups, summaries of classes, one cycle of the rate."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from raycl.compute.local_pool import LocalPool
from raycl.config.streams import Validation
from raycl.errors import DataError
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts import label_memory
from raycl.methods.parts.keys import unit
from raycl.methods.parts.label_memory import Centres
from raycl.methods.parts.one_cycle import one_cycle
from raycl.methods.parts.prototypes import Prototypes, summarise
from raycl.observe.events import nobody

WIDTH = 24


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def setting_of(width: int) -> Setting:
    return Setting(
        class_names=tuple(f"thing {c}" for c in range(6)),
        text=unit(noise(6, width)),
        has_text=torch.ones(6, dtype=torch.bool),
        logit_scale=100.0,
        init_seed=0,
        validation=Validation(seed=0),
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("at_once", [1 << 20, 64, 1])
def test_the_grouped_sum_is_the_one_hot_product(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_memory, "CLOSENESSES", at_once)
    sizes, beta = torch.tensor([3, 1, 2, 3, 3]), 1.7
    x = unit(noise(9, WIDTH))
    rows = noise(5, 3, WIDTH, seed=1).requires_grad_()
    found = Centres(rows, sizes).scores(x, beta)
    there = (torch.arange(3) < sizes[:, None]).flatten()
    owner = torch.arange(5).repeat_interleave(3)[there]
    flat = rows.flatten(0, 1)[there]
    expected = torch.exp(-beta * (1 - x @ flat.T)) @ one_hot(owner, 5).float()
    assert torch.allclose(found, expected, rtol=1e-5)
    weights = noise(9, 5, seed=2)
    (ours,) = torch.autograd.grad((found * weights).sum(), rows)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), rows)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert not ours.flatten(0, 1)[~there].any() and ours[1, 0].any()


def test_its_gradient_is_that_of_differences() -> None:
    x, sizes = unit(noise(6, 5)).double(), torch.tensor([2, 1, 2])
    rows = noise(3, 2, 5, seed=1).double().requires_grad_()
    missing = Centres(rows, sizes)._missing.double()

    def read(moved: Tensor) -> Tensor:
        found: Tensor = label_memory._Read.apply(x, moved, missing, 1.3)
        return found

    assert torch.autograd.gradcheck(read, (rows,))


# --- summaries of classes


def summaries(
    x: Tensor, y: Tensor, classes: tuple[int, ...], pool: Any = None, **changes: Any
) -> tuple[Centres, Prototypes]:
    setting = setting_of(x.shape[1])
    asked = {"centres": 4, "components": 3, **changes}
    context = Context(0, pool or LocalPool(), nobody)
    return summarise(x, y, classes, setting=setting, context=context, **asked)


def test_a_mixture_finds_lumps_and_their_size() -> None:
    lumps = torch.tensor([[4.0, 0, 0, 0], [0, 4, 0, 0]])
    x = lumps[torch.arange(400) % 4 // 3] + 0.5 * noise(400, 4)
    _, found = summaries(x, torch.zeros(400).long(), (0,), components=2)
    order = found.weight[0].argsort(descending=True)
    assert torch.allclose(found.weight[0][order], torch.tensor([0.75, 0.25]), atol=0.01)
    assert torch.allclose(found.mean[0][order], lumps, atol=0.15)
    assert torch.allclose(found.variance[0], torch.full((2,), 0.25), rtol=0.2)


def test_variance_is_the_trace_over_the_width() -> None:
    x = noise(50, 7) * torch.linspace(0.1, 2, 7)
    _, found = summaries(x, torch.zeros(50).long(), (0,), components=1)
    expected = torch.cov(x.T, correction=0).trace() / 7
    assert torch.allclose(found.variance[0, 0], expected, rtol=1e-5)


def test_centres_are_means_of_unit_vectors() -> None:
    x = torch.cat([3 * noise(30, 5) + 20, noise(30, 5) - 20])
    found, _ = summaries(x, torch.zeros(60).long(), (0,), centres=2)
    expected = torch.stack([unit(x[:30]).mean(dim=0), unit(x[30:]).mean(dim=0)])
    order = found.rows[0].sum(dim=1).argsort(descending=True)
    assert torch.allclose(found.rows[0][order], expected, atol=1e-5)


def test_few_or_equal_samples_make_few_centres_and_components() -> None:
    one, twins, three = noise(1, 5), noise(1, 5, seed=1).repeat(6, 1), noise(3, 5, seed=2)
    x = torch.cat([one, twins, three])
    y = torch.tensor([0, *[1] * 6, *[2] * 3])
    centres, found = summaries(x, y, (2, 0, 1))
    assert centres.sizes.tolist() == [3, 1, 1] and centres.rows.shape == (3, 3, 5)
    assert torch.allclose(centres.rows[0], unit(three), atol=1e-6)
    assert (found.weight > 0).sum(dim=1).tolist() == [3, 1, 1]
    assert torch.allclose(found.mean[1:, 0], torch.cat([one, twins[:1]]), atol=1e-6)
    assert found.variance[1:].abs().max() == 0
    assert torch.allclose(found.weight.sum(dim=1), torch.ones(3))


def test_neither_neighbours_nor_their_order_move_a_class() -> None:
    x, y = noise(90, 6), torch.arange(90) % 6
    whole, mixtures = summaries(x, y, (0, 1, 2, 3, 4, 5))
    some, others = summaries(x, y, (4, 1))
    for place, c in enumerate((4, 1)):
        assert torch.equal(some.rows[place], whole.rows[c])
        assert torch.equal(others.mean[place], mixtures.mean[c])
        assert torch.equal(others.variance[place], mixtures.variance[c])


def test_vectors_that_are_no_numbers_are_told_by_class() -> None:
    x = noise(12, 5)
    x[7] = math.nan
    with pytest.raises(DataError, match="thing 1"):
        summaries(x, torch.arange(12) % 2, (0, 1))


# --- the schedule


@pytest.mark.parametrize("steps", [4, 30, 301])
def test_one_cycle_is_torchs(steps: int) -> None:
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1.0, total_steps=steps)
    for step in range(steps):
        assert one_cycle(step, steps) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-9)
        optimiser.step()
        if step < steps - 1:
            cycle.step()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_short_cycle_has_rates_too(steps: int) -> None:
    assert all(0 < one_cycle(step, steps) <= 1 for step in range(steps))
