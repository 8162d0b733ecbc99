"""What every kind of generator promises, whatever it is inside."""

from __future__ import annotations

import math
import resource
import sys
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from raycl.config.generators import (
    GENERATORS,
    DiffusionGenerator,
    GaussianGenerator,
    GeneratorSpec,
    RealVectors,
    VAEGenerator,
)
from raycl.errors import ConfigError, DataError, StoppedError
from raycl.generators.bank import Bank
from raycl.generators.build import begin_fit, fit, fit_each, fits_per_class, restore_bank
from raycl.generators.diagnosis import diagnose
from raycl.generators.fitting import AnyBank, Watch
from raycl.generators.vectors import ClassVectors
from tests.generators.made_classes import (
    PER_CLASS,
    QUICK,
    SIZES,
    WIDTH,
    made_class,
    made_classes,
    many_classes,
    name_of,
    streams,
)

each_kind = pytest.mark.parametrize("spec", QUICK, ids=name_of)
each_kind_per_class = pytest.mark.parametrize("spec", PER_CLASS, ids=name_of)
WITH_WEIGHTS = [spec for spec in QUICK if "weights" in type(spec).model_fields]
"""All but the mean, which has means and scales only."""
CLOSED = ("mean", "gaussian", "gmm", "real")


def same(left: AnyBank, right: AnyBank) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_spec_is_tried_here() -> None:
    assert {type(spec) for spec in QUICK} == set(GENERATORS)


@each_kind
def test_samples_are_finite_and_of_one_shape(spec: GeneratorSpec) -> None:
    data = made_classes()
    bank = fit(spec, data)
    x = bank.sample(100, streams(len(data)))
    assert x.shape == (len(SIZES), 100, WIDTH)
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert (len(bank), bank.width) == (len(SIZES), WIDTH)
    assert bank.bytes_per_class > 0


@each_kind
def test_moments_are_those_of_the_class(spec: GeneratorSpec) -> None:
    """Networks get a short fit here: their means must be near, their spread bounded."""
    data = [made_class(c, 300) for c in range(3)]
    if spec.kind == "diffusion":
        spec = spec.model_copy(update={"steps": 500, "hidden": 48})
    found = diagnose(fit(spec, data), data, rows=2048)
    assert found.mean_error.max() < (0.1 if spec.kind in CLOSED else 0.5)
    if spec.kind == "mean":
        assert found.std_ratio.max() == 0
    elif spec.kind in CLOSED or getattr(spec, "output_noise", "") == "residual":
        assert (found.std_ratio - 1).abs().max() < 0.05
    else:
        assert 0.05 < found.std_ratio.min() <= found.std_ratio.max() < 1.5


@each_kind_per_class
def test_a_class_alone_is_the_class_among_others(spec: GeneratorSpec) -> None:
    """Bit for bit: state and samples, in any company and any order."""
    data = made_classes()
    together, who = fit(spec, data), streams(len(data))
    samples = together.sample(70, who)
    order = [5, 0, 7, 2, 1, 6, 3, 4]
    shuffled = fit(spec, [data[i] for i in order])
    assert same(shuffled, together.pick(order))
    assert torch.equal(shuffled.sample(70, [who[i] for i in order]), samples[order])
    for i, part in enumerate(together.split([1] * len(data))):
        alone = fit(spec, [data[i]])
        assert same(alone, part), i
        assert torch.equal(alone.sample(70, [who[i]])[0], samples[i]), i


@pytest.mark.parametrize(
    "spec",
    [VAEGenerator(epochs=2), DiffusionGenerator(steps=3), GaussianGenerator(covariance="full")],
    ids=name_of,
)
def test_the_same_at_the_width_of_real_embeddings(spec: GeneratorSpec) -> None:
    """Where products take the paths of large matrices; and in another thread."""
    data = [made_class(c, n, width=512, dtype=torch.float16) for c, n in enumerate((16, 65, 40))]
    together = fit(spec, data)
    samples = together.sample(65, streams(3))
    with ThreadPoolExecutor(1) as elsewhere:
        alone = elsewhere.submit(fit, spec, [data[1]]).result()
        assert same(alone, together.split([1, 1, 1])[1])
        again = elsewhere.submit(alone.sample, 65, streams(3)[1:2]).result()
    assert torch.equal(again[0], samples[1])


@each_kind_per_class
def test_packs_of_any_size_give_the_same_bank(spec: GeneratorSpec) -> None:
    data = made_classes()
    whole = fit(spec, data)
    for pack in (3, 8):
        made = list(fit_each(spec, iter(data), pack=pack))
        assert [name for names, _ in made for name in names] == [c.name for c in data]
        assert same(Bank.concat([bank for _, bank in made]), whole)


def test_a_shared_generator_does_not_depend_on_order_but_is_no_artefact_per_class() -> None:
    spec = QUICK[-1]
    data = made_classes()
    order = [5, 0, 7, 2, 1, 6, 3, 4]
    assert same(fit(spec, [data[i] for i in order]), fit(spec, data).pick(order))
    assert not fits_per_class(spec)
    with pytest.raises(ConfigError, match="at once"):
        next(fit_each(spec, data))
    left, right = fit(spec, data[:4]), fit(spec, data[4:])
    with pytest.raises(DataError, match="do not share one decoder"):
        Bank.concat([left, right])


@each_kind
def test_split_concat_and_state_give_back_the_same_bits(spec: GeneratorSpec) -> None:
    data = made_classes()
    bank, who = fit(spec, data), streams(len(data))
    samples = bank.sample(20, who)
    parts = bank.split([3, 1, 4])
    assert [len(p) for p in parts] == [3, 1, 4]
    assert same(Bank.concat(parts), bank)
    drawn = torch.cat(
        [p.sample(20, who[s]) for p, s in zip(parts, _slices([3, 1, 4]), strict=True)]
    )
    assert torch.equal(drawn, samples)
    again = restore_bank(spec, {name: t.clone() for name, t in bank.state_dict().items()})
    assert same(again, bank)
    assert torch.equal(again.sample(20, who), samples)
    for sizes in ([3, 4], [0, 8], [9]):
        with pytest.raises(DataError, match="cannot be cut"):
            bank.split(sizes)


def _slices(sizes: Sequence[int]) -> list[slice]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


@each_kind
def test_a_draw_is_one_endless_draw_cut_anywhere(spec: GeneratorSpec) -> None:
    data = made_classes((40, 1, 17))
    bank, who = fit(spec, data), streams(3)
    long = bank.sample(200, who)
    assert torch.equal(bank.sample(200, who), long)
    for n in (0, 1, 7, 64, 65):
        assert torch.equal(bank.sample(n, who), long[:, :n])
    pieces = [bank.sample(n, who, start) for start, n in ((0, 50), (50, 100), (150, 50))]
    assert torch.equal(torch.cat(pieces, dim=1), long)
    if spec.kind not in ("mean", "real"):
        other = bank.sample(200, [s + 1 for s in who])
        assert not torch.equal(other[0], long[0])
        assert not torch.equal(long[0, :64], long[0, 64:128])
    for bad in (who[:2], [*who, 1]):
        with pytest.raises(DataError, match="seed for each"):
            bank.sample(4, bad)


@each_kind
def test_a_class_of_one_sample_is_that_sample(spec: GeneratorSpec) -> None:
    data = [made_class(0, 1), made_class(1, 30)]
    x = fit(spec, data).sample(50, streams(2))
    assert torch.allclose(x[0], data[0].vectors.expand(50, -1), rtol=1e-3, atol=1e-3)


@each_kind
def test_a_constant_dimension_stays_constant(spec: GeneratorSpec) -> None:
    c = made_class(0, 50)
    flat = c.vectors.clone()
    flat[:, 3], flat[:, 5] = 0.1, 0.0
    x = fit(spec, [ClassVectors("flat", flat, 1)]).sample(64, [2])[0]
    assert x.isfinite().all()
    assert torch.allclose(x[:, 3], torch.tensor(0.1), atol=1e-4)
    assert (x[:, 5] == 0).all()


@each_kind
def test_a_class_without_any_spread(spec: GeneratorSpec) -> None:
    c = ClassVectors("copies", torch.full((20, WIDTH), 0.3), 1)
    bank = fit(spec, [c])
    assert torch.allclose(bank.sample(10, [2]), torch.tensor(0.3), atol=1e-4)
    found = diagnose(bank, [c])
    assert math.isnan(found.std_ratio[0])


@each_kind
def test_half_precision_input_is_the_same_numbers_in_single(spec: GeneratorSpec) -> None:
    half = [made_class(c, 30, dtype=torch.float16) for c in range(2)]
    single = [ClassVectors(c.name, c.vectors.float(), c.stream) for c in half]
    assert same(fit(spec, half), fit(spec, single))


@each_kind
@pytest.mark.parametrize("after", [1, 2, 5])
def test_resumed_is_straight(spec: GeneratorSpec, after: int) -> None:
    data = made_classes((20, 40, 1))
    straight = begin_fit(spec, data)
    while straight.done < straight.total:
        straight.advance()
    after = min(after, straight.total - 1)
    first = begin_fit(spec, data)
    for _ in range(after):
        first.advance()
    state = first.state()
    first.advance()  # the state must be a copy
    second = begin_fit(spec, data)
    second.restore(state)
    assert second.done == after
    while second.done < second.total:
        second.advance()
    assert same(second.bank(), straight.bank())


@each_kind
def test_a_stop_saves_and_the_next_call_goes_on(spec: GeneratorSpec) -> None:
    data = made_classes((20, 40, 1, 33))
    kept: list[dict[str, torch.Tensor]] = []
    told: list[tuple[int, int]] = []
    watch = Watch(
        progress=lambda done, total: told.append((done, total)),
        stopping=lambda: len(told) == 2,
        load=lambda: kept[-1] if kept else None,
        save=lambda state: kept.append(dict(state)),
    )
    with pytest.raises(StoppedError, match="after 2 of"):
        fit(spec, data, watch=watch)
    assert len(kept) == 1
    assert same(fit(spec, data, watch=watch), fit(spec, data))
    total = told[0][1]
    assert [done for done, _ in told] == list(range(1, total + 1)), "no round is done twice"


@pytest.mark.parametrize("epochs", [1, 2, 9])
def test_fewer_than_ten_epochs_are_enough(epochs: int) -> None:
    for spec in QUICK:
        if "epochs" in type(spec).model_fields:
            bank = fit(spec.model_copy(update={"epochs": epochs}), made_classes((20, 17)))
            assert bank.sample(3, streams(2)).isfinite().all()


@each_kind
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused_by_name(spec: GeneratorSpec, bad: float) -> None:
    x = made_class(0, 6).vectors.clone()
    x[4, 2] = bad
    with pytest.raises(DataError, match=r"'jaguar': 1 vectors hold NaN[\s\S]*rows 4"):
        fit(spec, [made_class(1, 5), ClassVectors("jaguar", x, 1)])


@each_kind
def test_what_cannot_be_fitted_is_refused(spec: GeneratorSpec) -> None:
    for x in (torch.zeros(0, 4), torch.zeros(4), torch.zeros(3, 4, dtype=torch.long)):
        with pytest.raises(DataError, match="'odd'"):
            ClassVectors("odd", x, 1)
    with pytest.raises(DataError, match="no class"):
        fit(spec, [])
    with pytest.raises(DataError, match="one vector width"):
        fit(spec, [made_class(0, 5), made_class(1, 5, width=7)])


@pytest.mark.parametrize("spec", WITH_WEIGHTS, ids=name_of)
def test_half_precision_weights_cost_little_and_take_half(spec: GeneratorSpec) -> None:
    data = made_classes((40, 30))
    single, half = (fit(spec.model_copy(update={"weights": w}), data) for w in ("fp32", "fp16"))
    if single.bytes_per_class > 2 * WIDTH * 4:
        assert half.bytes_per_class < 0.85 * single.bytes_per_class
    close = half.sample(64, streams(2)) - single.sample(64, streams(2))
    assert close.abs().max() < 0.05
    assert half.sample(4, streams(2)).dtype == torch.float32


def test_half_precision_that_cannot_hold_a_vector_is_refused() -> None:
    huge = ClassVectors("huge", torch.full((3, 4), 1e6), 1)
    with pytest.raises(DataError, match="half precision"):
        fit(RealVectors(), [huge])
    assert fit(RealVectors(weights="fp32"), [huge]).sample(2, [1]).max() == 1e6


@each_kind_per_class
def test_many_classes_in_bounded_memory(spec: GeneratorSpec) -> None:
    _fit_many(spec, 10_000 if spec.kind in ("mean", "gaussian", "real") else 1_000)


@pytest.mark.ordeal
@each_kind_per_class
def test_ten_thousand_classes_in_bounded_memory(spec: GeneratorSpec) -> None:
    _fit_many(spec, 10_000)


def _fit_many(spec: GeneratorSpec, count: int, pack: int = 32) -> None:
    """Classes come from an iterator and banks are dropped: two packs at most are ever held."""
    quick = {"hidden": 4, "latent": 2, "epochs": 2, "steps": 2, "layers": 1, "noise_steps": 2}
    small = {name: value for name, value in quick.items() if name in type(spec).model_fields}
    spec = spec.model_copy(update=small)
    alive: weakref.WeakSet[object] = weakref.WeakSet()

    def watched() -> Iterator[ClassVectors]:
        for c in many_classes(count, 3, 4):
            alive.add(c)
            yield c

    done, most, early = 0, 0, 0
    for names, bank in fit_each(spec, watched(), pack=pack):
        done += len(names)
        alive.add(bank)
        most = max(most, len(alive))
        if done <= count // 10:
            early = _peak_bytes()
    assert done == count
    assert most <= 2 * (pack + 1)
    assert _peak_bytes() - early < 16 << 20


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
