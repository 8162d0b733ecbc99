"""Fits over a pool: the same bits however they are made, once, and honest about bad classes."""

from __future__ import annotations

import random
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raycl.compute.here import Here
from raycl.compute.local_pool import LocalPool
from raycl.config.generators import (
    GaussianGenerator,
    GeneratorSpec,
    MeanGenerator,
    SharedVAEGenerator,
)
from raycl.errors import DataError, MethodError, StoppedError, StoreError, WorkError
from raycl.fitting.fitted import Fitted
from raycl.fitting.identity import class_stream, distinct_names
from raycl.fitting.packing import Packs
from raycl.fitting.parallel import _checked
from raycl.fitting.worker import PICTURES, ClassFitter, Fit
from raycl.generators.build import fit
from raycl.generators.vectors import ClassVectors
from raycl.observe.events import Computed, Event, Progress, Reused, Warned
from raycl.store.store import Store
from tests.conftest import BUCKET
from tests.fitting.made_fits import (
    fitted,
    made_vectors,
    record_bytes,
    tensor_digests,
)
from tests.generators.made_classes import PER_CLASS, QUICK, name_of

SHARED = SharedVAEGenerator(latent=6, hidden=24, class_width=4, epochs=12, batch=16)


def same(a: Fitted, b: Fitted) -> bool:
    x, y = a.bank.state_dict(), b.bank.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


@pytest.mark.parametrize("spec", QUICK, ids=name_of)
def test_the_bank_is_that_of_a_plain_fit_in_the_callers_order(
    spec: GeneratorSpec, tmp_path: Path
) -> None:
    classes = made_vectors()
    data = [ClassVectors(n, torch.tensor(x), class_stream(0, n)) for n, x in classes.items()]
    expected = fit(spec, data).state_dict()
    found = fitted(classes, tmp_path, spec)
    assert found.names == tuple(classes) and found.streams == tuple(c.stream for c in data)
    assert found.bank.state_dict().keys() == expected.keys()
    for name, tensor in found.bank.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("spec", PER_CLASS, ids=name_of)
def test_order_and_subset_refit_nothing_and_move_no_bit(
    spec: GeneratorSpec, tmp_path: Path
) -> None:
    classes = made_vectors()
    whole = fitted(classes, tmp_path / "a", spec)
    shuffled = dict(random.Random(0).sample(list(classes.items()), len(classes)))
    part = dict(list(shuffled.items())[:3])
    first = fitted(part, tmp_path / "b", spec)
    second = fitted(shuffled, tmp_path / "b", spec)
    assert (first.computed, first.reused) == (3, 0)
    assert (second.computed, second.reused) == (5, 3)
    assert tensor_digests(tmp_path / "a") == tensor_digests(tmp_path / "b")
    places = [whole.names.index(name) for name in second.names]
    for name, tensor in second.bank.state_dict().items():
        assert torch.equal(tensor, whole.bank.pick(places).state_dict()[name])


def test_a_second_call_finds_all_and_tells_so(tmp_path: Path) -> None:
    classes = made_vectors()
    first = fitted(classes, tmp_path)
    events: list[Event] = []
    store = Store.open(str(tmp_path))
    again = fitted(classes, tmp_path, store=store, observer=events.append)
    assert (again.computed, again.reused) == (0, 8) and store.computed == {}
    assert store.reused == {"generator": 8}
    assert sum(isinstance(e, Reused) for e in events) == 8
    assert same(first, again) and first.notes == again.notes


def test_what_means_something_else_is_fitted_anew(tmp_path: Path) -> None:
    x = made_vectors((9,))["class 0"]
    spec = GaussianGenerator()
    fitted({"a": x}, tmp_path, spec)
    changed = x.copy()
    changed[3, 4] += 1e-3
    others: list[tuple[dict[str, Any], GeneratorSpec, int]] = [
        ({"b": x}, spec, 0),
        ({"a": changed}, spec, 0),
        ({"a": x[::-1]}, spec, 0),
        ({"a": x}, spec, 1),
        ({"a": x}, GaussianGenerator(covariance="full"), 0),
        ({"a": x}, GaussianGenerator(weights="fp16"), 0),
    ]
    for classes, generator, seed in others:
        assert fitted(classes, tmp_path, generator, seed=seed).computed == 1
    assert fitted({"a": x}, tmp_path, spec).computed == 0


def test_how_vectors_are_held_does_not_matter(tmp_path: Path) -> None:
    x = made_vectors((9,))["class 0"].astype(np.float16)
    fitted({"a": x}, tmp_path)
    locked = x.astype(np.float32)
    locked.flags.writeable = False
    for held in (x.astype(np.float64), np.asfortranarray(x), torch.tensor(x), locked):
        assert fitted({"a": held}, tmp_path).computed == 0


def test_progress_ends_where_it_should(tmp_path: Path) -> None:
    events: list[Event] = []
    classes = made_vectors()
    fitted(dict(list(classes.items())[:2]), tmp_path)
    fitted(classes, tmp_path, observer=events.append, task=4)
    told = [(e.done, e.total) for e in events if isinstance(e, Progress)]
    assert told[0] == (2, 8) and told[-1] == (8, 8) and told == sorted(told)
    assert {(e.task, e.stage) for e in events if isinstance(e, Progress)} == {(4, "fit vae")}
    assert sum(isinstance(e, Computed) for e in events) == 6


def test_notes_say_how_good_a_class_is(tmp_path: Path) -> None:
    one, many = fitted(made_vectors((1, 129)), tmp_path, GaussianGenerator()).notes
    assert (one.vectors, one.dispersion, one.mean_error) == (1, None, None)
    assert many.dispersion is not None and abs(many.dispersion - 1) < 0.1
    assert many.mean_error is not None and 0 < many.mean_error < 0.2
    assert many.bytes == 2 * 12 * 4 and many.seconds > 0


# What cannot be fitted


def bad_class(how: str) -> Any:
    x = made_vectors((9,))["class 0"].copy()
    match how:
        case "NaN":
            x[3, 2] = np.nan
        case "empty":
            x = x[:0]
        case "flat":
            return x[0]
        case "whole numbers":
            return x.astype(int)
        case "too large":
            return x.astype(np.float64) * 1e300
        case "overflow":
            x[::2], x[1::2] = 3.3e38, -3.3e38
    return x


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("NaN", DataError, "NaN or infinity"),
        ("empty", DataError, "at least one"),
        ("flat", DataError, "one per row"),
        ("whole numbers", DataError, "must be floats"),
        ("too large", DataError, "NaN or infinity"),
        ("overflow", MethodError, "NaN or infinity"),
    ],
)
def test_a_bad_class_is_named_and_the_others_are_stored(
    how: str, kind: type[Exception], says: str, tmp_path: Path
) -> None:
    good = made_vectors((20, 30, 5))
    with pytest.raises(kind, match=f"1 of 4 classes cannot be fitted: 'poison'.*{says}"):
        fitted({"poison": bad_class(how), **good}, tmp_path, GaussianGenerator())
    assert fitted(good, tmp_path, GaussianGenerator()).reused == 3
    with pytest.raises(kind, match=says):
        fitted({"poison": bad_class(how)}, tmp_path, GaussianGenerator())


def test_every_bad_class_is_named(tmp_path: Path) -> None:
    classes = {f"bad {i}": bad_class("NaN") for i in range(9)}
    with pytest.raises(DataError, match=r"9 of 10 .* and 4 more"):
        fitted({**classes, **made_vectors((4,))}, tmp_path, MeanGenerator())


def test_a_fit_that_diverges_is_named_and_costs_no_neighbour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = fit

    def diverging(spec: Any, data: Any, *rest: Any) -> Any:
        if any(c.name == "class 1" for c in data):
            raise MethodError("the VAE of class 'class 1' diverged", do="lower its lr")
        return honest(spec, data, *rest)

    monkeypatch.setattr("raycl.fitting.worker.fit", diverging)
    events: list[Event] = []
    with pytest.raises(MethodError, match=r"1 of 4 .* 'class 1'.*lower its lr"):
        fitted(made_vectors((5, 6, 7, 8)), tmp_path, observer=events.append)
    assert len(tensor_digests(tmp_path)) == 3
    assert any(isinstance(e, Warned) and "'class 1'" in e.message for e in events)


def test_a_class_that_breaks_its_worker_is_named_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, tried = fit, []

    def breaking(spec: Any, data: Any, *rest: Any) -> Any:
        if data[0].name == "class 2":
            tried.append(1)
            raise RuntimeError("out of something")
        return honest(spec, data, *rest)

    monkeypatch.setattr("raycl.fitting.worker.fit", breaking)
    # Quick fits go in wide packs, so the broken one has neighbours behind it.
    with pytest.raises(WorkError, match=r"class class 2\) failed 3 times.*out of something"):
        fitted(made_vectors((9,) * 30), tmp_path, MeanGenerator())
    assert len(tensor_digests(tmp_path)) == 29 and len(tried) in (3, 6)


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ({}, "no class to fit"),
        ({3: np.ones((3, 4), "f4")}, "named by text"),
        ({"a": np.ones((3, 4), "f4"), "b": np.ones((3, 5), "f4")}, "'a': 4, 'b': 5"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    classes: dict[Any, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=says):
        fitted(classes, tmp_path)


def test_a_bucket_holds_the_same_bits(tmp_path: Path, s3_address: str) -> None:
    classes = made_vectors((9, 20, 3))
    here = fitted(classes, tmp_path)
    uri = f"s3://{BUCKET}/{tmp_path.name}?endpoint_override={s3_address}&scheme=http"
    for computed in (3, 0):
        there = fitted(classes, tmp_path, store=Store.open(uri))
        assert there.computed == computed and same(here, there)


def test_damage_is_found_and_mended(tmp_path: Path) -> None:
    classes = made_vectors()
    before = fitted(classes, tmp_path)
    digests, records = tensor_digests(tmp_path), record_bytes(tmp_path)
    files = sorted(tmp_path.rglob("*generator.safetensors"))
    flipped = bytearray(files[0].read_bytes())
    flipped[-1] ^= 1
    files[0].write_bytes(flipped)
    files[1].unlink()
    again = fitted(classes, tmp_path)
    assert (again.computed, again.reused) == (2, 6)
    assert tensor_digests(tmp_path) == digests and same(before, again)
    assert sum(records[k] != v for k, v in record_bytes(tmp_path).items()) == 2


def test_a_generator_that_is_gone_when_the_bank_is_asked_for(tmp_path: Path) -> None:
    found = fitted(made_vectors((3, 4)), tmp_path, MeanGenerator())
    found.store.discard(found.keys[1])
    with pytest.raises(StoreError, match=r"'class 1' is no longer in the store.*\n.*fit again"):
        _ = found.bank


# Stops, waits, stragglers


def test_a_stop_in_the_middle_of_a_class_loses_nothing(tmp_path: Path) -> None:
    classes = made_vectors()
    whole = fitted(classes, tmp_path / "a")
    asked: list[bool] = []

    def stopping() -> bool:
        asked.append(True)
        return len(asked) > 30

    with pytest.raises(StoppedError):
        fitted(classes, tmp_path / "b", stopping=stopping)
    store = Store.open(str(tmp_path / "b"))
    done, begun = (list(store.records(kind)) for kind in ("generator", "generator-partial"))
    assert 0 < len(done) < 8 and len(begun) == 1
    events: list[Event] = []
    again = fitted(classes, tmp_path / "b", observer=events.append)
    assert again.reused == len(done) and same(whole, again)
    assert list(store.records("generator-partial")) == []


def test_a_half_done_fit_goes_on_and_does_not_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = made_vectors((40,))
    whole = fitted(classes, tmp_path / "a")
    asked: list[bool] = []
    with pytest.raises(StoppedError, match="after 7 of 12 rounds"):
        fitted(classes, tmp_path / "b", stopping=lambda: asked.append(True) or len(asked) > 6)
    rounds: list[int] = []
    honest = Here.__init__

    def counting(self: Here, stopping: Any, progress: Any = None) -> None:
        honest(self, stopping, lambda done, total: rounds.append(done))

    monkeypatch.setattr(Here, "__init__", counting)
    again = fitted(classes, tmp_path / "b")
    assert rounds == [8, 9, 10, 11, 12] and same(whole, again)


def test_two_callers_fit_each_class_once(tmp_path: Path) -> None:
    classes = made_vectors((20,) * 12)
    found: list[Fitted] = []

    def work(names: list[str]) -> None:
        found.append(fitted({n: classes[n] for n in names}, tmp_path))

    orders = [list(classes), list(reversed(classes))]
    threads = [threading.Thread(target=work, args=(names,)) for names in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(f.computed for f in found) == 12 == sum(f.reused for f in found)
    for f in found:
        assert f.bank.pick([f.names.index(n) for n in classes]).tensors["mean"].shape == (12, 12)


def test_a_straggler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raycl.fitting.parallel.STRAGGLER_SECONDS", 0.0)
    events: list[Event] = []
    classes = made_vectors((8, 9, 900, 10, 8))
    fitted(classes, tmp_path / "a", observer=events.append)
    (told,) = [e.message for e in events if isinstance(e, Warned)]
    assert "'class 2'" in told and "900 vectors, the median 9" in told
    monkeypatch.setattr("raycl.fitting.parallel.STRAGGLER_SECONDS", 600.0)
    events.clear()
    fitted(classes, tmp_path / "b", observer=events.append)
    assert not any(isinstance(e, Warned) for e in events), "too short a wait to speak of"


# How classes are packed


class _Workers(LocalPool):
    workers = 4

    def __init__(self) -> None:
        super().__init__()
        self.shipped: list[int] = []

    def put(self, value: Any) -> Any:
        self.shipped.append(len(value))
        return super().put(value)


def wanted(sizes: tuple[int, ...], place: Path) -> list[Any]:
    return _checked(made_vectors(sizes), MeanGenerator(), 0)[0]


def test_packs_grow_with_quick_classes_and_end_small(tmp_path: Path) -> None:
    packs = Packs(wanted((5,) * 900, tmp_path), _Workers())
    sizes = []
    for pack in packs:
        sizes.append(len(pack.fits))
        packs.heard(len(pack.fits), 0.001 * len(pack.fits))
    assert sizes[0] == 1 and max(sizes) == 64 == packs.widest and sizes[-1] == 1
    assert sum(sizes) == 900 and len(sizes) < 60


def test_slow_classes_go_one_by_one_and_the_longest_first(tmp_path: Path) -> None:
    packs = Packs(wanted((5, 9, 7, 20, 1), tmp_path), _Workers())
    order = []
    for pack in packs:
        order += [name for work in pack.fits for name in work.names]
        packs.heard(len(pack.fits), 20.0)
    assert order == ["class 3", "class 1", "class 2", "class 0", "class 4"]
    assert packs.widest == 1


def test_a_gpu_gets_wide_packs_that_leave_no_worker_idle(tmp_path: Path) -> None:
    for count, expected in ((300, [64, 59, 45, 33]), (8, [2, 2, 1, 1])):
        sizes = [len(p.fits) for p in Packs(wanted((5,) * count, tmp_path), _Workers(), 64)]
        assert sizes[:4] == expected and sum(sizes) == count


def test_vectors_travel_in_bounded_shipments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = made_vectors((30,) * 11)
    whole = fitted(classes, tmp_path / "a", GaussianGenerator())
    monkeypatch.setattr("raycl.fitting.packing.SHIPMENT_BYTES", 3 * 30 * 12 * 4)
    pool = _Workers()
    parts = fitted(classes, tmp_path / "b", GaussianGenerator(), pool=pool)
    assert pool.shipped == [3, 3, 3, 2] and same(whole, parts)


def test_a_stack_as_a_gpu_takes_it_names_the_class_that_breaks_it(tmp_path: Path) -> None:
    """Its arithmetic is the CPU's here; who is blamed and what is stored is the same."""
    classes = {**made_vectors((9, 9, 9, 9, 9)), "poison": bad_class("overflow")}
    want, _ = _checked(classes, GaussianGenerator(covariance="full"), 0)
    fitter = ClassFitter(GaussianGenerator(covariance="full"), str(tmp_path), "cpu", Here())
    fits = [Fit(w.artefact, (w.name,), (w.stream,), (0,)) for w in want]
    data = [ClassVectors(w.name, torch.tensor(w.vectors), w.stream) for w in want]
    made = fitter._stacked(fits[:2], data[:2])
    assert [m.computed for m in made] == [True, True]
    assert all(m.notes is not None and PICTURES not in m.notes for m in made), "not sent back"
    made = fitter._stacked(fits, data)
    assert [m.computed for m in made] == [False, False, True, True, True, False]
    assert [m.fault is None for m in made] == [True] * 5 + [False]
    assert "poison" in str(made[-1].fault)
    own = fitted(made_vectors((9,) * 5), tmp_path / "own", GaussianGenerator(covariance="full"))
    digests = tensor_digests(tmp_path / "own")
    assert digests.items() <= tensor_digests(tmp_path).items() and own.computed == 5


# Shared generators


def test_a_shared_generator_is_one_artefact_whatever_the_order(tmp_path: Path) -> None:
    classes = made_vectors()
    first = fitted(classes, tmp_path, SHARED)
    turned = dict(reversed(classes.items()))
    again = fitted(turned, tmp_path, SHARED)
    assert (first.computed, again.computed, again.reused) == (1, 0, 1)
    assert len(first.keys) == 1 and again.names == tuple(turned)
    back = again.bank.pick([again.names.index(n) for n in classes]).state_dict()
    assert all(torch.equal(back[n], t) for n, t in first.bank.state_dict().items())
    assert [n.name for n in again.notes] == list(turned)
    part = fitted(dict(list(classes.items())[:3]), tmp_path, SHARED)
    assert part.computed == 1, "its result depends on all of its classes"


def test_a_shared_fit_tells_epochs_stops_and_goes_on(tmp_path: Path) -> None:
    classes = made_vectors()
    whole = fitted(classes, tmp_path / "a", SHARED)
    events: list[Event] = []
    asked: list[bool] = []

    def stopping() -> bool:
        asked.append(True)
        return len(asked) > 5

    with pytest.raises(StoppedError):
        fitted(classes, tmp_path / "b", SHARED, stopping=stopping)
    again = fitted(classes, tmp_path / "b", SHARED, observer=events.append)
    told = [(e.done, e.total, e.unit) for e in events if isinstance(e, Progress)]
    assert told[0][0] > 1 and told[-1] == (12, 12, "epoch") and same(whole, again)


def test_a_shared_generator_takes_no_bad_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'poison'(.|\n)*none was fitted"):
        fitted({**made_vectors(), "poison": bad_class("NaN")}, tmp_path, SHARED)
    assert tensor_digests(tmp_path) == {}


# Names


def test_names_of_a_source_are_made_distinct() -> None:
    assert distinct_names(("a", "b"), (0, 0), ("x",)) == ("a", "b")
    assert distinct_names(("a", "a"), (0, 1), ("x", "y")) == ("x/a", "y/a")
    assert distinct_names(("a", "b", "a"), (0, 0, 0), ("x",)) == ("a#0", "b", "a#2")


@pytest.mark.parametrize("name", ["", "../../etc", "a\nb", "é" * 300, "\ud800", "x/y"])
def test_any_name_can_be_stored(name: str, tmp_path: Path) -> None:
    found = fitted({name: made_vectors((4,))["class 0"]}, tmp_path, MeanGenerator())
    assert len(found.bank) == 1 and re.fullmatch(r"generator/[\w.-]+/[0-9a-f]{32}", found.keys[0])


def test_two_thousand_classes(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2000, 3, 4)).astype("f4")
    found = fitted({f"c{i}": rows for i, rows in enumerate(x)}, tmp_path, MeanGenerator())
    assert found.computed == 2000
    assert np.allclose(found.bank.tensors["mean"].numpy(), x.mean(axis=1), atol=1e-6)
