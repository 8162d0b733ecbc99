"""The parts of generators against torch, scikit-learn and hand computation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from sklearn.covariance import LedoitWolf
from sklearn.mixture import GaussianMixture

from raycl.config.generators import (
    DiffusionGenerator,
    GaussianGenerator,
    GMMGenerator,
    RealVectors,
    VAEGenerator,
)
from raycl.errors import DataError, MethodError
from raycl.generators.adamw import AdamW
from raycl.generators.ahead import Ahead
from raycl.generators.bank import Bank
from raycl.generators.batches import batch_count, batch_slices, epoch_order, packs
from raycl.generators.build import begin_fit, fit
from raycl.generators.diagnosis import diagnose
from raycl.generators.diffusion import DiffusionFitting
from raycl.generators.gaussian import ledoit_wolf, packed, unpacked
from raycl.generators.layers import batch_norm, linear
from raycl.generators.schedule import cosine_signal, warm_restarts
from raycl.generators.vae import VAEFitting
from raycl.generators.vectors import ClassVectors, standardise
from tests.generators.made_classes import made_class, streams

CPU = torch.device("cpu")


def test_the_optimiser_takes_torchs_steps_and_resumes() -> None:
    start = torch.randn(12, generator=torch.Generator().manual_seed(0))

    def loss(p: torch.Tensor) -> torch.Tensor:
        return (p.sin() * torch.arange(12.0)).sum()

    ours, theirs, again = (start.clone().requires_grad_() for _ in range(3))
    optimiser, reference = (
        AdamW([ours], 0.05, 0.1),
        torch.optim.AdamW([theirs], 0.05, weight_decay=0.1),
    )
    for step in range(40):
        optimiser.step(loss(ours))
        reference.zero_grad()
        loss(theirs).backward()
        reference.step()
        if step == 20:
            state = optimiser.state()
    assert torch.allclose(ours, theirs, atol=1e-5)
    resumed = AdamW([again], 0.05, 0.1)
    resumed.restore(state)
    for _ in range(19):
        resumed.step(loss(again))
    assert torch.equal(again, ours)


def test_a_gradient_laid_out_otherwise_moves_the_right_elements() -> None:
    """A transposed product gives one, and the fused kernel does not look at strides."""
    x = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    ours, theirs = (torch.ones(3, 4, 5, requires_grad=True) for _ in range(2))
    optimiser, reference = AdamW([ours], 0.01), torch.optim.Adam([theirs], 0.01)
    for _ in range(5):
        optimiser.step(torch.bmm(x, ours.transpose(1, 2)).sin().sum())
        reference.zero_grad()
        torch.bmm(x, theirs.transpose(1, 2)).sin().sum().backward()
        reference.step()
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("epochs", [20, 73, 500])
def test_the_learning_rate_is_torchs(epochs: int) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, epochs // 10, 2)
    for epoch in range(epochs):
        assert warm_restarts(0.3, epoch, epochs) == pytest.approx(optimiser.param_groups[0]["lr"])
        optimiser.step()
        reference.step()


def test_the_signal_fades_from_nearly_all_to_nothing() -> None:
    alpha = cosine_signal(32)
    assert 0.99 < alpha[0] < 1
    assert alpha[-1] == 0
    assert (alpha.diff() < 0).all()


def test_stacked_layers_are_the_plain_ones() -> None:
    random = torch.Generator().manual_seed(0)
    x, w = torch.randn(3, 9, 5, generator=random), torch.randn(3, 5, 4, generator=random)
    b = torch.randn(3, 4, generator=random)
    plain = torch.stack([F.linear(x[i], w[i].T, b[i]) for i in range(3)])
    assert torch.allclose(linear(x, w, b), plain, atol=1e-5)
    assert torch.allclose(linear(x[:1], w[:1], b[:1]), plain[:1], atol=1e-5)
    gain, bias = torch.rand(3, 5, generator=random), torch.rand(3, 5, generator=random)
    mask = torch.ones(3, 9, 1)
    mask[1, 6:] = 0
    found = batch_norm(x, gain, bias, mask)
    for i, rows in enumerate((9, 6, 9)):
        expected = F.batch_norm(x[i, :rows], None, None, gain[i], bias[i], True)
        assert torch.allclose(found[i, :rows], expected, atol=1e-5)
    lone = batch_norm(x[:1, :1], gain[:1], bias[:1], None)
    assert torch.allclose(lone[0, 0], bias[0])


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 66, 128, 129, 200])
def test_batches_meet_every_row_once_and_never_one_alone(rows: int) -> None:
    slices = batch_slices(rows, 64)
    met = [i for s in slices for i in range(s.start, s.stop)]
    assert met == list(range(rows))
    assert len(slices) == batch_count(rows, 64)
    assert rows == 1 or min(s.stop - s.start for s in slices) > 1
    assert sorted(epoch_order(5, 2, rows).tolist()) == list(range(rows))
    assert rows < 63 or not torch.equal(epoch_order(5, 2, rows), epoch_order(5, 3, rows))


def test_packs_hold_classes_that_take_equally_many_batches() -> None:
    sizes = [64, 200, 65, 1, 129, 66, 130, 128]
    made = packs(sizes, 64, 2)
    assert sorted(place for pack in made for place in pack) == list(range(8))
    for pack in made:
        assert len(pack) <= 2
        assert len({batch_count(sizes[place], 64) for place in pack}) == 1


def test_standardising_survives_a_flat_dimension_and_half_precision() -> None:
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)).half()
    x[:, 1] = 0.1
    scaled = standardise(x)
    assert scaled.std[1] == 0
    assert (scaled.x[:, 1] == 0).all()
    assert torch.allclose(scaled.x[:, [0, 2]].std(dim=0), torch.ones(2, dtype=torch.float64))
    thirds = standardise(torch.full((7, 2), 1 / 3))
    assert (thirds.std == 0).all(), "a mean of equal numbers may be off by rounding"


@pytest.mark.parametrize(("n", "d"), [(16, 40), (300, 6), (2, 5)])
def test_ledoit_and_wolfs_share_is_sklearns(n: int, d: int) -> None:
    x = made_class(0, n, width=d).vectors.double()
    x = x - x.mean(dim=0)
    reference = LedoitWolf(assume_centered=True).fit(x.numpy()).shrinkage_
    assert ledoit_wolf(x) == pytest.approx(reference, rel=1e-6)


def test_a_full_gaussian_has_the_correlations_of_the_class() -> None:
    c = made_class(0, 4000)
    diagonal, full = (fit(GaussianGenerator(covariance=v), [c]) for v in ("diag", "full"))
    real = np.corrcoef(c.vectors.numpy().T)
    off = ~np.eye(len(real), dtype=bool)
    assert np.abs(real[off]).max() > 0.3
    for bank, largest in ((full, 0.05), (diagonal, None)):
        found = np.corrcoef(bank.sample(20_000, [1])[0].numpy().T)
        if largest:
            assert np.abs(found - real).max() < largest
        else:
            assert np.abs(found[off]).max() < 0.05
    root = torch.randn(5, 5).tril()
    assert torch.equal(unpacked(packed(root), 5), root)


@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_the_gaussians_density_is_torchs(covariance: Any) -> None:
    c = made_class(0, 30)
    bank = fit(GaussianGenerator(covariance=covariance), [c])
    mean, std = bank.tensors["mean"][0], bank.tensors["std"][0]
    factor = torch.eye(len(std))
    if covariance == "full":
        factor = unpacked(bank.tensors["factor"][0], len(std))
    reference = torch.distributions.MultivariateNormal(torch.zeros(len(std)), scale_tril=factor)
    expected = reference.log_prob((c.vectors - mean) / std) / len(std)
    found = bank.log_likelihood(c.vectors[None])
    assert found is not None
    assert torch.allclose(found[0], expected, atol=1e-3)


def test_the_mixture_finds_clusters_as_sklearn_does() -> None:
    random = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0, 0], [6, 0, 0], [0, 6, 3]])
    which = torch.randint(3, (600,), generator=random)
    x = centres[which] + torch.randn(600, 3, generator=random) * torch.tensor([0.5, 1.0, 0.3])
    data = [ClassVectors("three", x, 3)]
    bank = fit(GMMGenerator(components=3, floor=1e-6), data)
    scaled = standardise(x)
    reference = GaussianMixture(3, covariance_type="diag", random_state=0).fit(scaled.x.numpy())
    found = bank.log_likelihood(x[None])
    assert found is not None
    assert float(found.mean()) * 3 == pytest.approx(reference.score(scaled.x.numpy()), abs=0.02)
    drawn = bank.sample(4000, [1])[0]
    near = torch.cdist(drawn, centres).argmin(dim=1).bincount(minlength=3) / 4000
    assert torch.allclose(near, which.bincount(minlength=3) / 600, atol=0.05)


def test_real_vectors_come_up_equally_often_and_are_counted_without_padding() -> None:
    data = [made_class(0, 6, dtype=torch.float16), made_class(1, 30, dtype=torch.float16)]
    bank = fit(RealVectors(per_class=4), data)
    x = bank.sample(80, streams(2))
    for c in range(2):
        rows, counts = x[c].unique(dim=0, return_counts=True)
        assert counts.tolist() == [20] * 4
        assert all((data[c].vectors.float() == row).all(dim=1).any() for row in rows)
    assert bank.bytes_per_class == 4 * 12 * 2
    every = fit(RealVectors(), data)
    assert every.bytes_per_class == 18 * 12 * 2
    assert [b.bytes_per_class for b in every.split([1, 1])] == [6 * 24, 30 * 24]


STACKS = [
    (VAEFitting, VAEGenerator(latent=4, hidden=16, epochs=8, batch=16, lr=2e-3)),
    (DiffusionFitting, DiffusionGenerator(hidden=16, layers=2, noise_steps=8, steps=30, batch=16)),
]


@pytest.mark.parametrize(("fitting", "spec"), STACKS, ids=["vae", "diffusion"])
def test_a_padded_stack_is_its_classes_to_rounding(fitting: Any, spec: Any) -> None:
    """The form that runs on a GPU, here on a CPU."""
    data = [made_class(c, n) for c, n in enumerate((34, 40, 48))]
    stack = fitting(spec, data, CPU)
    while stack.done < stack.total:
        stack.advance()
    for part, c in zip(stack.bank().split([1, 1, 1]), data, strict=True):
        alone = fit(spec, [c])
        for name, tensor in alone.tensors.items():
            assert torch.allclose(part.tensors[name], tensor, atol=2e-3), (c.name, name)


@pytest.mark.parametrize(("fitting", "spec"), STACKS, ids=["vae", "diffusion"])
def test_every_round_and_every_class_draws_anew(fitting: Any, spec: Any) -> None:
    x = made_class(0, 60).vectors
    stack = fitting(spec, [ClassVectors("a", x, 1), ClassVectors("b", x, 2)], CPU)
    for first, second in zip(stack.draws.get(0), stack.draws.get(1), strict=True):
        rows = min(first.shape[1], second.shape[1])
        # Shares of rows in a mean are the same in every round.
        constant = first.is_floating_point() and len(first.unique()) < 4
        assert constant or not torch.equal(first[:, :rows], second[:, :rows])
        assert constant or not torch.equal(first[0], first[1])
    again = fitting(spec, [ClassVectors("b", x, 2)], CPU)
    for together, alone in zip(stack.draws.get(0), again.draws.get(0), strict=True):
        assert torch.equal(together[1], alone[0])


def test_draws_made_ahead_are_the_draws() -> None:
    elsewhere = torch.device("meta")
    ahead = Ahead(lambda i: (torch.full((2,), float(i)),), 6, CPU)
    assert [float(ahead.get(i)[0][0]) for i in range(6)] == [0, 1, 2, 3, 4, 5]
    made: list[int] = []

    def make(i: int) -> tuple[torch.Tensor, ...]:
        made.append(i)
        return (torch.zeros(2),)

    remote = Ahead(make, 6, elsewhere)
    for i in range(6):
        assert remote.get(i)[0].device == elsewhere
    assert sorted(made) == list(range(6))
    assert remote.workers is None


@pytest.mark.parametrize(
    ("spec", "change"),
    [
        (VAEGenerator(latent=4, hidden=16, epochs=8), {"parity": True}),
        (VAEGenerator(latent=4, hidden=16, epochs=8), {"precision": "bf16"}),
        (VAEGenerator(latent=4, hidden=16, epochs=8), {"output_noise": "unit"}),
        (DiffusionGenerator(hidden=16, steps=9), {"parity": True}),
        (DiffusionGenerator(hidden=16, steps=9), {"precision": "bf16"}),
        (GaussianGenerator(covariance="full"), {"shrinkage": 0.9}),
        (GMMGenerator(components=2), {"parity": True}),
        (GMMGenerator(components=2), {"floor": 0.9}),
    ],
    ids=str,
)
def test_an_option_moves_the_samples_and_not_far(spec: Any, change: dict[str, Any]) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=random) * torch.tensor([1.0, 1, 1, 2, 2, 0.2])
    data = [ClassVectors("overlapping", x, 1)]
    plain, changed = (fit(s, data).sample(500, [2]) for s in (spec, spec.model_copy(update=change)))
    assert not torch.equal(plain, changed)
    assert (plain.mean(dim=1) - changed.mean(dim=1)).abs().max() < 0.5
    if change == {"precision": "bf16"}:
        assert (plain - changed).abs().max() < 0.1


def test_training_makes_a_vae_better() -> None:
    """Held-out log-likelihood rises, and samples spread as the data does."""
    data, held = [made_class(0, 400)], [_later(made_class(0, 800), 400)]
    spec = VAEGenerator(latent=8, hidden=64, epochs=40, lr=2e-3)
    scores = []
    for epochs in (1, 40):
        found = diagnose(fit(spec.model_copy(update={"epochs": epochs}), data), held)
        assert found.log_likelihood is not None
        scores.append((float(found.log_likelihood), float(found.std_ratio)))
    assert scores[1][0] > scores[0][0] + 0.03
    assert scores[1][1] > scores[0][1] + 0.2


def _later(c: ClassVectors, start: int) -> ClassVectors:
    return ClassVectors(c.name, c.vectors[start:], c.stream)


@pytest.mark.parametrize(
    "spec",
    [
        VAEGenerator(latent=2, hidden=4, epochs=5, lr=1e30),
        DiffusionGenerator(hidden=4, steps=5, lr=1e30),
    ],
    ids=lambda spec: spec.kind,
)
def test_a_fit_that_diverges_says_whose(spec: Any) -> None:
    with pytest.raises(MethodError, match="'class 3' diverged"):
        fit(spec, [made_class(3, 20)])


def test_diagnosis_tells_good_from_bad() -> None:
    c = made_class(0, 2000)
    bank = fit(GaussianGenerator(covariance="full"), [c])
    good = diagnose(bank, [c], rows=2000)
    assert float(good.std_ratio) == pytest.approx(1, abs=0.03)
    assert float(good.mean_error) == pytest.approx(0, abs=0.05)
    wrong = ClassVectors("wrong", 2 * c.vectors + 5, 1)
    bad = diagnose(bank, [wrong], rows=2000)
    assert float(bad.std_ratio) == pytest.approx(0.5, abs=0.03)
    assert float(bad.mean_error) > float(good.mean_error) + 0.3
    assert float(bad.reconstruction) > float(good.reconstruction) + 0.3
    assert good.log_likelihood is not None and bad.log_likelihood is not None
    assert float(good.log_likelihood) > float(bad.log_likelihood) + 1
    with pytest.raises(DataError, match="same classes"):
        diagnose(bank, [c, c])
    assert math.isnan(
        float(diagnose(fit(GaussianGenerator(), [made_class(1, 1)]), [made_class(1, 1)]).std_ratio)
    )


def test_banks_of_two_kinds_do_not_mix() -> None:
    data = [made_class(0, 20)]
    with pytest.raises(DataError, match="different generators"):
        Bank.concat([fit(GaussianGenerator(), data), fit(GMMGenerator(), data)])
    with pytest.raises(DataError, match="different generators"):
        Bank.concat([fit(GMMGenerator(), data), fit(GMMGenerator(components=3), data)])
    with pytest.raises(DataError, match="no bank"):
        Bank.concat([])
    assert begin_fit(GMMGenerator(), data).total == 1
