"""The optimiser takes the steps that torch's own class takes, and survives a copy."""

from __future__ import annotations

import pytest
import torch

from raycl.generators.adamw import AdamW


def descend(optimiser: AdamW, parameter: torch.Tensor, steps: int) -> None:
    for _ in range(steps):
        optimiser.step((parameter.sin() * torch.arange(12.0)).sum())


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_steps_are_torchs(weight_decay: float) -> None:
    start = torch.randn(12, generator=torch.Generator().manual_seed(0))
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    descend(AdamW([ours], 0.05, weight_decay), ours, 40)
    reference = torch.optim.AdamW([theirs], lr=0.05, weight_decay=weight_decay)
    for _ in range(40):
        reference.zero_grad()
        (theirs.sin() * torch.arange(12.0)).sum().backward()
        reference.step()
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, start, atol=0.1)


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    through, first, second = (torch.ones(12, requires_grad=True) for _ in range(3))
    descend(AdamW([through], 0.05, 0.0), through, 9)
    stopped = AdamW([first], 0.05, 0.0)
    descend(stopped, first, 4)
    resumed = AdamW([second], 0.05, 0.0)
    resumed.restore(stopped.state())
    descend(resumed, second, 5)
    assert torch.equal(through, second)


def test_moved_part_by_part_is_moved_at_once() -> None:
    random = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (4,), (5,)]
    starts = [torch.randn(shape, generator=random) for shape in shapes]
    whole, parts = (AdamW([s.clone() for s in starts], 0.05, 0.1) for _ in range(2))
    for _ in range(5):
        gradients = [torch.randn(shape, generator=random) for shape in shapes]
        whole.move(gradients)
        parts.begin_step()
        parts.move_part(slice(1, 3), gradients[1:])
        parts.move_part(slice(0, 1), gradients[:1])
    expected, found = whole.state(), parts.state()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert found["steps.0"] == 5
