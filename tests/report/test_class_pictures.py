"""The picture of a class that a worker leaves: its own axes, the same bits, never a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raycl.config.generators import (
    GaussianGenerator,
    GeneratorSpec,
    MeanGenerator,
    RealVectors,
)
from raycl.fitting.fitted import Fitted
from raycl.fitting.worker import AXES_ROWS, NOTES, PICTURES, REAL, SAMPLED, STEPS, picture
from raycl.generators.build import fit
from raycl.generators.vectors import ClassVectors
from tests.fitting.made_fits import fitted, made_vectors
from tests.generators.made_classes import QUICK, name_of


def points(text: str) -> np.ndarray:
    return np.array(text.split(), int).reshape(-1, 2)


def pictures(found: Fitted) -> dict[str, Any]:
    """By class, the picture that the store holds."""
    out = {}
    for c in found.classes:
        notes = found.store.get(c.artefact)[NOTES]
        names = [note["name"] for note in notes["classes"]]
        out[c.name] = notes[PICTURES][names.index(c.name)]
    return out


@pytest.mark.parametrize("spec", QUICK, ids=name_of)
def test_every_class_has_the_same_picture_however_it_was_fitted(
    spec: GeneratorSpec, tmp_path: Path
) -> None:
    classes = made_vectors()
    found = pictures(fitted(classes, tmp_path / "a", spec))
    turned = fitted(dict(reversed(classes.items())), tmp_path / "b", spec)
    assert found == pictures(turned)
    for name, x in classes.items():
        real, sampled = (points(found[name][what]) for what in ("real", "sampled"))
        assert len(real) == min(len(x), REAL) and len(sampled) == SAMPLED
        assert max(abs(real).max(), abs(sampled).max()) in (0, STEPS)
        assert 0 <= found[name]["share"][1] <= found[name]["share"][0] <= 1


@pytest.mark.parametrize(("rows", "width"), [(9, 30), (40, 12), (2, 5)])
def test_a_picture_has_the_principal_axes_of_the_real_vectors(rows: int, width: int) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, width)).astype("f4") * np.arange(
        1, width + 1
    )
    data = ClassVectors("a", torch.tensor(x), 7)
    shown = picture(fit(GaussianGenerator(), [data]), data)
    left, size, _ = np.linalg.svd(x - x.mean(axis=0, dtype="f8"), full_matrices=False)
    expected = abs(left[:, :2] * size[:2]) * (size[:2] > 1e-6)
    real = abs(points(shown.real)) * shown.unit / STEPS
    order = np.lexsort(expected.T[::-1])
    assert np.allclose(real[np.lexsort(real.T[::-1])], expected[order], atol=shown.unit / STEPS)
    assert np.allclose(shown.share, np.square(size[:2]) / np.square(size).sum(), atol=1e-4)


def test_a_picture_shows_what_a_generator_lacks() -> None:
    direction = np.random.default_rng(0).normal(size=30)
    x = np.random.default_rng(1).normal(size=(300, 1)) * direction
    data = ClassVectors("a", torch.tensor(x.astype("f4")), 7)

    def width(spec: GeneratorSpec) -> float:
        shown = picture(fit(spec, [data]), data)
        return points(shown.sampled)[:, 0].std() / points(shown.real)[:, 0].std()

    assert len(x) > AXES_ROWS, "axes of some of its vectors"
    full = width(GaussianGenerator(covariance="full", shrinkage=0.0))
    assert 0.7 < full < 1.4 and width(GaussianGenerator()) < 0.5 and width(MeanGenerator()) < 0.01


def test_kept_vectors_are_drawn_where_they_are() -> None:
    data = ClassVectors("a", torch.tensor(made_vectors((20,))["class 0"]), 7)
    shown = picture(fit(RealVectors(weights="fp32"), [data]), data)
    assert {*map(tuple, points(shown.real))} == {*map(tuple, points(shown.sampled))}


@pytest.mark.parametrize("spec", QUICK, ids=name_of)
def test_a_class_that_does_not_vary_is_one_point(spec: GeneratorSpec, tmp_path: Path) -> None:
    flat = np.full((6, 12), 0.1, "f4")
    found = pictures(fitted({"one": flat[:1], "flat": flat}, tmp_path, spec))
    for shown, rows in ((found["one"], 1), (found["flat"], 6)):
        assert shown["real"] == " ".join("0" for _ in range(2 * rows))
        assert set(shown["sampled"].split()) == {"0"}
        assert (shown["unit"], shown["share"]) == (0.0, [0.0, 0.0])


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e15])
def test_a_picture_knows_no_unit(scale: float) -> None:
    x = np.random.default_rng(0).normal(size=(20, 6))
    shown = []
    for factor in (1.0, scale):
        data = ClassVectors("a", torch.tensor((factor * x).astype("f4")), 7)
        shown.append(picture(fit(RealVectors(weights="fp32"), [data]), data))
    first, second = (points(one.real) for one in shown)
    assert abs(first - second).max() <= 1 and shown[1].unit / shown[0].unit == pytest.approx(scale)


def test_samples_without_a_place_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ClassVectors("a", torch.tensor(made_vectors((20,))["class 0"]), 7)
    bank = fit(GaussianGenerator(), [data])
    drawn = bank.sample(SAMPLED, [1])
    drawn[0, 3:, 2] = torch.inf
    monkeypatch.setattr(type(bank), "sample", lambda *_: drawn)
    shown = picture(bank, data)
    assert len(points(shown.sampled)) == 3 and np.isfinite(shown.unit)


def test_what_was_fitted_before_there_were_pictures_is_found(tmp_path: Path) -> None:
    classes = made_vectors((9, 20))
    first = fitted(classes, tmp_path)
    for c in first.classes:
        payloads = first.store.get(c.artefact)
        assert payloads is not None and PICTURES in payloads[NOTES]
        del payloads[NOTES][PICTURES]
        first.store.put(c.artefact, payloads)
    again = fitted(classes, tmp_path)
    assert (again.computed, again.reused) == (0, 2) and again.notes == first.notes
