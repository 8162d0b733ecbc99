"""The parts of Auto-Seed: seeds stand where their losses put them, the least useful go."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from raycl.compute.local_pool import LocalPool
from raycl.config.autoseed import AutoSeed, SeedUpdate
from raycl.methods.context import Context
from raycl.methods.parts.keys import unit
from raycl.methods.parts.seed_adaptation import Adaptation, class_gradients
from raycl.methods.parts.seed_adapters import Adapters, untrained
from raycl.methods.parts.seed_consequences import Asked, Consequences
from raycl.methods.parts.seed_generator import Conditions, SeedGenerator, described
from raycl.methods.parts.seed_memory import SeedMemory
from raycl.methods.parts.seed_pruning import Judge, kept_seeds
from raycl.methods.parts.seed_update import Lesson, SeedUpdateLoop
from raycl.methods.parts.seeds import (
    SeedLoss,
    Seeds,
    consistency,
    crowding,
    fused,
    means_of_text,
    merged,
)
from raycl.observe.events import nobody
from tests.methods.made_seeds import (
    SCALE,
    WIDTH,
    keys_over,
    made,
    noise,
    short,
    some_adapters,
    some_seeds,
)

# ---- what is built of what


def test_before_any_training_nothing_is_moved() -> None:
    setting, _ = made()
    x = unit(noise(5, WIDTH))
    adapters = untrained(setting, rank=4)
    assert torch.allclose(adapters.image(x), x) and torch.allclose(adapters.text(x), x)
    known = Conditions(x, unit(noise(5, WIDTH, seed=1)), noise(5, 2 * WIDTH + 2))
    v, w = SeedGenerator(setting, hidden=16, noise=4)(known, noise(5, 3, 4))
    assert v.shape == w.shape == (5, 3, WIDTH)
    assert torch.allclose(v, x[:, None].expand_as(v), atol=1e-6)
    assert torch.allclose(w, known.text[:, None].expand_as(w), atol=1e-6)


def test_a_generated_seed_depends_on_its_own_class_and_noise_alone() -> None:
    setting, _ = made()
    generator = SeedGenerator(setting, hidden=16, noise=4)
    generator.tensors["weight.2"] = noise(2 * WIDTH, 16)
    known = Conditions(*(noise(5, n, seed=n) for n in (WIDTH, WIDTH, 2 * WIDTH + 2)))
    drawn = noise(5, 3, 4)
    v, w = generator(known, drawn)
    one_v, one_w = generator(known.take(torch.tensor([2])), drawn[2:3])
    assert torch.allclose(v[2:3], one_v, atol=1e-6) and torch.allclose(w[2:3], one_w, atol=1e-6)
    assert not torch.allclose(v[:, 0], v[:, 1], atol=1e-3)


def test_conditions_are_the_gradients_of_the_cross_entropy() -> None:
    adapters, keys = some_adapters(), unit(noise(4, WIDTH, seed=3))
    x, y = unit(noise(1100, WIDTH, seed=4)), torch.arange(1100) % 3
    g, h = class_gradients(adapters, keys, x, y, SCALE)
    for c in range(3):
        k = keys.clone().requires_grad_()
        z = adapters.image(x[y == c]).requires_grad_()
        loss = cross_entropy(SCALE * z @ k.T, y[y == c])
        by_key, by_vector = torch.autograd.grad(loss, [k, z])
        assert torch.allclose(g[c], by_key[c], atol=1e-5)
        assert torch.allclose(h[c], by_vector.sum(dim=0), atol=1e-5)
    assert not g[3].any() and not h[3].any()
    told = described(g, h)
    assert told.shape == (4, 2 * WIDTH + 2) and bool(told.isfinite().all())


def test_keys_are_of_text_where_no_seed_is_known() -> None:
    text, seeds = unit(noise(4, WIDTH)), some_seeds(6, 3)
    mean_w = means_of_text(seeds, 4)
    assert torch.allclose(mean_w[1], seeds.w[[1, 4]].mean(dim=0)) and not mean_w[3].any()
    found = fused(text, mean_w, 0.5)
    assert torch.allclose(found[3], text[3])
    assert torch.allclose(found[0], normalize(text[0] + mean_w[0], dim=0), atol=1e-6)


def test_seeds_of_a_class_are_nobodys_negatives() -> None:
    v, w = unit(noise(4, WIDTH, seed=1)), unit(noise(4, WIDTH, seed=2))
    y = torch.tensor([0, 1, 1, 2])
    logits = v @ w.T / 0.07
    total = 0.0
    for side in (logits, logits.T):
        for i in range(4):
            others = [j for j in range(4) if y[j] != y[i]]
            total -= float(side[i, i] - torch.logsumexp(side[i, [i, *others]], dim=0))
    assert float(consistency(v, w, y, 0.07)) == pytest.approx(total / 8, rel=1e-5)
    alone = consistency(v[:1], w[:1], y[:1], 0.07)
    assert float(alone) == pytest.approx(0.0, abs=1e-6)


def test_crowding_counts_pairs_beyond_the_limit() -> None:
    v = unit(noise(2, 3, WIDTH))
    assert float(crowding(v, v)) == 0.0
    v[0, 1] = v[0, 0]
    assert float(crowding(v, v)) == pytest.approx(0.05 / 6, rel=1e-4)
    assert float(crowding(v[:, :1], v[:, :1])) == 0.0


def test_alike_seeds_are_merged_and_others_stay() -> None:
    v, w = unit(noise(2, 4, WIDTH, seed=1)), unit(noise(2, 4, WIDTH, seed=2))
    v[0, 2], w[0, 2] = unit(v[0, 0] + 0.01), unit(w[0, 0] + 0.01)
    v[1, 3] = v[1, 1]  # one side alike is not enough
    memory = SeedMemory()
    memory.add(v, w, torch.tensor([7, 3]), merge=True)
    (group,) = memory.groups
    assert group.y.tolist() == [7, 7, 7, 3, 3, 3, 3]
    assert torch.allclose(group.v[0], unit(v[0, 0] + v[0, 2]), atol=1e-6)
    assert torch.allclose(group.w[0], unit(w[0, 0] + w[0, 2]), atol=1e-6)
    assert torch.allclose(group.v[1], v[0, 1]) and torch.allclose(group.v[3:], v[1])
    assert torch.allclose(group.v.norm(dim=1), torch.ones(7), atol=1e-6)
    equal = v[:, :1].expand(2, 4, WIDTH)
    assert merged(equal, equal)[:, 0].eq(1).all() and not merged(equal, equal)[:, 1:].any()


# ---- the update


def a_loop(spec: AutoSeed, old: int = 6) -> SeedUpdateLoop:
    """An update at adapters that are not the first ones, of four new classes among seven."""
    setting, _ = made()
    text = unit(noise(7, WIDTH, seed=30))
    rows = torch.tensor([3, 4, 5, 6])
    x, y = unit(noise(8, WIDTH, seed=31)), torch.arange(8) % 4 + 3
    seeds = some_seeds(old, 3) if old else None
    mean_w = torch.zeros(7, WIDTH) if seeds is None else means_of_text(seeds, 7)
    loss = SeedLoss(SCALE, 0.07, spec.consistency)
    mine = Adaptation(x, y, seeds, mean_w, keys_over(text), loss)
    judge = Judge(unit(noise(4, WIDTH, seed=32)), rows, keys_over(text), SCALE)
    known = Conditions(unit(noise(4, WIDTH, seed=33)), text[rows], noise(4, 2 * WIDTH + 2))
    lesson = Lesson(known, rows, mine, judge, some_adapters())
    generator = SeedGenerator(setting, spec.hidden, spec.noise)
    return SeedUpdateLoop(spec, setting, generator, lesson, task=1)


def behind(steps: int, rate: float) -> tuple[Consequences, Any, Any]:
    """Consequences in double precision, how seeds are replayed, what is asked."""
    text, old = unit(noise(7, WIDTH, seed=30)).double(), some_seeds(6, 3)
    adapters = Adapters(*(part.double() for part in some_adapters()))
    y = torch.arange(8) % 4 + 3

    def replay(v: Tensor, w: Tensor) -> tuple[Seeds, Tensor]:
        seeds = Seeds.joined([Seeds(v, w, y), Seeds(old.v.double(), old.w.double(), old.y)])
        total = torch.zeros(7, WIDTH, dtype=w.dtype).index_add(0, seeds.y, seeds.w)
        return seeds, total / torch.bincount(seeds.y)[:, None]

    found = Consequences(adapters, keys_over(text), SeedLoss(SCALE, 0.07, True), steps, rate)
    held_out = Asked(unit(noise(9, WIDTH, seed=32)).double(), torch.arange(9) % 7, SCALE)
    return found, replay, [held_out, Asked(old.v.double(), old.y, 0.3 * SCALE)]


@pytest.mark.parametrize("side", [0, 1])
def test_one_inner_step_has_the_exact_gradient_by_the_seeds(side: int) -> None:
    """First order drops the Hessian between inner steps; with one step there is none."""
    found, replay, asked = behind(steps=1, rate=0.05)
    sides = [unit(noise(8, WIDTH, seed=40 + i)).double() for i in range(2)]
    slopes = found.slopes(*sides, replay, asked)
    way, step = noise(8, WIDTH, seed=9).double(), 1e-5

    def outer(amount: float) -> float:
        v, w = (s + amount * way if i == side else s for i, s in enumerate(sides))
        after = found.descent(v, w, replay)[-1]
        keys = found.keys(after, replay(v, w)[1])
        losses = [cross_entropy(a.scale * after.image(a.x) @ keys.T, a.y) for a in asked]
        return float(sum(losses))

    change = (outer(step) - outer(-step)) / (2 * step)
    assert abs(change) > 1e-4
    assert float((slopes[side] * way).sum()) == pytest.approx(change, rel=1e-5)


def test_several_inner_steps_are_first_order_in_the_rate() -> None:
    """Of a small rate, three steps at α are one step at 3 α, and come to v at all."""
    sides = [unit(noise(8, WIDTH, seed=40 + i)).double() for i in range(2)]
    three, replay, asked = behind(steps=3, rate=1e-5)
    by_v, by_w = three.slopes(*sides, replay, asked)
    one_v, one_w = behind(steps=1, rate=3e-5)[0].slopes(*sides, replay, asked)
    assert float(by_v.norm()) > 0
    assert torch.allclose(by_v, one_v, rtol=1e-2, atol=1e-9)
    assert torch.allclose(by_w, one_w, rtol=1e-2, atol=1e-6)
    assert not any(side.any() for side in three.slopes(*sides, replay, []))


def test_old_seeds_that_are_safe_still_judge_at_a_lower_scale() -> None:
    """An old seed on its own key has no loss at full scale, wherever a new key is moved."""

    def pull(scale: float) -> float:
        text = torch.eye(WIDTH)[:2]

        def replay(v: Tensor, w: Tensor) -> tuple[Seeds, Tensor]:
            return Seeds(v, w, torch.tensor([1])), torch.cat([text[:1], w])

        found = Consequences(
            untrained(made()[0], rank=4), keys_over(text), SeedLoss(SCALE, 0.07, False), 1, 0.0
        )
        near = unit(text[1:] + 0.8 * text[:1])
        asked = [Asked(text[:1], torch.tensor([0]), scale)]
        return float(found.slopes(text[1:], near, replay, asked)[1].norm())

    assert pull(0.3 * SCALE) > 100 * pull(SCALE)


@pytest.mark.parametrize("old", [0, 6])
def test_the_scale_of_old_seeds_matters_where_there_are_some(old: int) -> None:
    def learnt(scale: float) -> Tensor:
        update = SeedUpdate(steps=15, lr=1e-3, old_scale=scale)
        loop = a_loop(short(update=update), old=old)
        loop.run(Context(1, LocalPool(), nobody))
        return loop.seeds()[1]

    assert torch.equal(learnt(1.0), learnt(0.3)) == (old == 0)


def test_old_seeds_and_adapters_come_back_unmoved() -> None:
    loop = a_loop(short())
    lesson = loop.lesson
    assert lesson.mine.seeds is not None
    held = (*lesson.adapters, *(getattr(lesson.mine.seeds, s) for s in "vwy"), lesson.mine.mean_w)
    before = [tensor.clone() for tensor in held]
    loop.run(Context(1, LocalPool(), nobody))
    assert all(torch.equal(a, b) for a, b in zip(before, held, strict=True))
    v, w = loop.seeds()
    assert not torch.allclose(v, lesson.known.mean[:, None].expand_as(v), atol=1e-3)
    assert torch.equal(loop.seeds()[1], w)


# ---- pruning


def test_use_is_the_loss_that_a_seeds_absence_adds_to_first_order() -> None:
    text, seeds, adapters = unit(noise(4, WIDTH)), some_seeds(12, 4), some_adapters()
    x, y, keys = unit(noise(9, WIDTH, seed=5)), torch.arange(9) % 4, keys_over(text)
    mean_w = means_of_text(seeds, 4)
    rate = 0.03

    def loss(at: Adapters, means: Tensor) -> Tensor:
        k = keys(at, means)
        both = ((x, y), (seeds.v, seeds.y))
        return sum((cross_entropy(SCALE * at.image(a) @ k.T, b) for a, b in both), torch.zeros(()))

    uses = Judge(x, y, keys, SCALE).uses(seeds, adapters, 4, rate)
    at, means = adapters.ready(), mean_w.clone().requires_grad_()
    by_means, *by_adapters = torch.autograd.grad(loss(at, means), [means, *at])
    for s in range(12):
        others = [i for i in range(12) if i != s and seeds.y[i] == seeds.y[s]]
        in_key = (by_means[s % 4] * (seeds.w[others].mean(dim=0) - mean_w[s % 4])).sum()
        own = SCALE * at.image(seeds.v[s : s + 1]) @ keys(at, mean_w).T
        slopes = torch.autograd.grad(cross_entropy(own, seeds.y[s : s + 1]), list(at))
        in_replay = sum((a * b).sum() for a, b in zip(slopes, by_adapters, strict=True))
        expected = float(in_key + rate / 12 * in_replay)
        assert float(uses[s]) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_use_of_a_nearby_seed_is_what_its_absence_does_to_the_loss() -> None:
    """Where w differ little the estimate of the key's part must be the true difference."""
    text, adapters, seeds = unit(noise(4, WIDTH)), some_adapters(), some_seeds(8, 4)
    w = unit(seeds.w[seeds.y] + 1e-3 * noise(8, WIDTH, seed=8))
    seeds = Seeds(seeds.v.double(), w.double(), seeds.y)
    x, y, keys = unit(noise(9, WIDTH, seed=5)), torch.arange(9) % 4, keys_over(text.double())
    in_double = Adapters(*(part.double() for part in adapters))
    judge = Judge(x.double(), y, keys, SCALE)
    torch.set_default_dtype(torch.float64)
    try:
        uses = judge.uses(seeds, in_double, 4, 1e-12)

        def loss(kept: list[int]) -> float:
            k = keys(in_double, means_of_text(seeds.take(torch.tensor(kept)), 4))
            both = ((judge.x, y), (seeds.v, seeds.y))
            return sum(float(cross_entropy(SCALE * in_double.image(a) @ k.T, b)) for a, b in both)

        for s in range(8):
            added = loss([i for i in range(8) if i != s]) - loss(list(range(8)))
            assert float(uses[s]) == pytest.approx(added, rel=0.05, abs=1e-7)
    finally:
        torch.set_default_dtype(torch.float32)


def test_without_held_out_samples_the_seeds_judge() -> None:
    seeds = some_seeds(6, 3)
    judge = Judge(torch.empty(0, WIDTH), torch.empty(0).long(), keys_over(seeds.w[:3]), SCALE)
    assert bool(judge.uses(seeds, some_adapters(), 3, 0.01).isfinite().all())


def test_the_least_useful_go_and_never_a_classs_last() -> None:
    y, worth = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([1.0, 2.0, 9.0, 0.5, 3.0, -5.0])
    asked: list[list[float]] = []

    def uses(now: Seeds) -> Tensor:
        use = now.v[:, 0]  # a seed's worth is written into it
        asked.append(use.tolist())
        last = torch.bincount(now.y, minlength=3)[now.y] == 1
        return use.masked_fill(last, math.inf)

    seeds = Seeds(worth[:, None].expand(6, 2), torch.zeros(6, 2), y)
    assert kept_seeds(seeds, 6, uses).all() and not asked
    assert kept_seeds(seeds, 5, uses).tolist() == [True, True, True, False, True, True]
    assert kept_seeds(seeds, 4, uses).tolist() == [False, True, True, False, True, True]
    asked.clear()
    assert kept_seeds(seeds, 1, uses).tolist() == [False, False, True, False, True, True]
    assert asked == [[1, 2, 9, 0.5, 3, -5], [2, 9, 3, -5], [9, 3, -5]]
