"""The written-out gradients of a class's VAE are autograd's, and may be used as they come."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raycl.config.generators import Precision, VAEGenerator
from raycl.generators.build import begin_fit, fit
from raycl.generators.fitting import Fitting
from raycl.generators.layers import Parameters
from raycl.generators.vae import VAEFitting
from tests.generators.made_classes import made_class

CPU = torch.device("cpu")


def begun(precision: Precision = "fp32", parity: bool = False) -> VAEFitting:
    """A fit some epochs old, so that no parameter is where it starts."""
    spec = VAEGenerator(
        latent=24, hidden=48, epochs=30, batch=16, lr=2e-3, precision=precision, parity=parity
    )
    fitting = VAEFitting(spec, [made_class(0, 40, width=32)], CPU)
    for _ in range(5):
        fitting.advance()
    return fitting


def written_out(fitting: VAEFitting, x: Tensor, noise: Tensor) -> Parameters:
    """By name, as autograd has them."""
    assert fitting.lone is not None
    found: dict[int, Tensor] = {}
    for part, gradients in fitting.lone.gradients(x, noise):
        for place, gradient in zip(range(part.start, part.stop), gradients, strict=True):
            found[place] = gradient.clone()
    assert sorted(found) == list(range(len(fitting.network)))
    where = {p.data_ptr(): i for i, p in enumerate(fitting.lone.parameters)}
    return {name: found[where[t.data_ptr()]] for name, t in fitting.network.items()}


def by_autograd(fitting: VAEFitting, x: Tensor, noise: Tensor) -> Parameters:
    loss = fitting._loss(x[None], noise[None], None, torch.tensor([float(len(x))]))
    gradients = torch.autograd.grad(loss, list(fitting.network.values()))
    return {name: g[0] for name, g in zip(fitting.network, gradients, strict=True)}


def batch(rows: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 32, generator=random), torch.randn(rows, 24, generator=random)


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 8, 64])
def test_gradients_are_autograds(rows: int, parity: bool) -> None:
    fitting = begun(parity=parity)
    ours, theirs = (made(fitting, *batch(rows)) for made in (written_out, by_autograd))
    for name, gradient in theirs.items():
        # A bias before a batch norm has none, and of one row it leaves nothing at all.
        silent = name in ("encoder.0.bias", "encoder.1.bias") or rows == 1
        assert silent or gradient.abs().max() > 1e-3, name
        assert ours[name].shape == gradient.shape
        assert torch.allclose(ours[name], gradient, rtol=1e-4, atol=2e-5), name


@pytest.mark.parametrize("rows", [8, 64])
def test_in_bfloat16_they_are_as_near_to_single_precision_as_autocasts(rows: int) -> None:
    fitting = begun("bf16")
    ours, theirs = (made(fitting, *batch(rows)) for made in (written_out, by_autograd))
    fitting.spec = fitting.spec.model_copy(update={"precision": "fp32"})
    exact = by_autograd(fitting, *batch(rows))
    for name in exact:
        if name not in ("encoder.0.bias", "encoder.1.bias"):
            off, allowed = ((g[name] - exact[name]).norm() for g in (ours, theirs))
            assert ours[name].dtype == torch.float32
            assert 0 < off < 1.5 * allowed, name
            assert off < 0.1 * exact[name].norm(), name


def test_a_layer_may_be_moved_before_the_next_gradients_are_asked_for() -> None:
    """As they are used: what follows must not see the new weights, nor keep the old ones."""
    for precision in ("fp32", "bf16"):
        at_once, after = begun(precision), begun(precision)
        assert at_once.lone is not None
        x, noise = batch(16)
        kept = written_out(after, x, noise)
        for part, gradients in at_once.lone.gradients(x, noise):
            for parameter, gradient in zip(at_once.lone.parameters[part], gradients, strict=True):
                parameter.sub_(gradient, alpha=0.1)
        for name, tensor in after.network.items():
            moved = tensor.detach()[0].sub_(kept[name], alpha=0.1)
            assert torch.equal(moved, at_once.network[name].detach()[0]), (precision, name)
        assert after.lone is not None
        after.lone.refresh()
        ours, theirs = (written_out(f, x, noise) for f in (at_once, after))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), precision


def finished(fitting: Fitting) -> Parameters:
    while fitting.done < fitting.total:
        fitting.advance()
    return fitting.bank().state_dict()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_fit_is_the_same_stopped_or_not_and_in_any_company(precision: Precision) -> None:
    spec = VAEGenerator(latent=24, hidden=48, epochs=6, batch=16, lr=2e-3, precision=precision)
    data = [made_class(c, n, width=32) for c, n in enumerate((40, 17, 1))]
    straight = fit(spec, data)
    for i, part in enumerate(straight.split([1, 1, 1])):
        first, second = begin_fit(spec, [data[i]]), begin_fit(spec, [data[i]])
        first.advance()
        first.advance()
        second.restore(first.state())
        whole = finished(second)
        assert all(torch.equal(t, whole[name]) for name, t in part.state_dict().items()), i
