"""Vectors of classes, as they are given to `fit_generators` and to `raycl fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from raycl import Execution, fit_generators
from raycl.config.generators import (
    DiffusionGenerator,
    GaussianGenerator,
    GeneratorSpec,
    GMMGenerator,
    MeanGenerator,
    RealVectors,
    SharedVAEGenerator,
    VAEGenerator,
)
from tests.fuzz.asking import desk, examples, refused_in_words
from tests.fuzz.hostile import names

GENERATORS: tuple[GeneratorSpec, ...] = (
    MeanGenerator(),
    GaussianGenerator(),
    GaussianGenerator(covariance="full", weights="fp16"),
    GMMGenerator(components=3, iterations=5),
    GMMGenerator(components=2, iterations=5, parity=True, weights="fp16"),
    VAEGenerator(latent=2, hidden=4, epochs=2, batch=4),
    VAEGenerator(latent=2, hidden=4, epochs=2, batch=4, output_noise="residual", weights="fp16"),
    SharedVAEGenerator(latent=2, hidden=4, epochs=1, batch=4, class_width=2),
    DiffusionGenerator(hidden=4, layers=1, noise_steps=3, steps=3, batch=4),
    RealVectors(per_class=2),
)
SIZES = st.sampled_from([0, 1, 2, 3, 5, 40])
SCALES = st.sampled_from([1.0, 0.0, 1e-38, 1e-12, 1e4, 6e4, 1e12, 3e38, 1e300])
DTYPES = ("f2", "f4", "f8", "i4", "?", "c8", "U3", "O", ">f4")


@st.composite
def vectors(draw: st.DrawFn) -> Any:
    """What somebody takes for the vectors of a class."""
    random = np.random.default_rng(draw(st.integers(0, 99)))
    with np.errstate(all="ignore"):
        x = random.normal(size=(draw(SIZES), draw(st.sampled_from([1, 3, 3, 3])))) * draw(SCALES)
        if draw(st.booleans()):
            x[:, : draw(st.integers(0, 3))] = draw(SCALES)
        if draw(st.booleans()) and x.size:
            x[draw(st.integers(0, len(x) - 1))] = draw(st.sampled_from([np.nan, np.inf, 0.0]))
        x = x.astype(draw(st.sampled_from(("f4", "f4", *DTYPES))))
    match draw(st.sampled_from(["", "", "", "tensor", "turned", "every other", "flat", "list"])):
        case "tensor" if x.dtype.kind in "fi" and x.dtype.isnative:
            kind = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.int8]))
            return torch.from_numpy(x).to(kind).requires_grad_(kind.is_floating_point)
        case "turned":
            return np.asfortranarray(x)
        case "every other":
            return x[::2]
        case "flat":
            return x.reshape(-1)
        case "list":
            return x.tolist()
    return x


@examples(60)
@given(
    classes=st.dictionaries(st.one_of(names, st.integers()), vectors(), max_size=4),
    generator=st.sampled_from(GENERATORS),
    seed=st.sampled_from([0, 1, 2**40]),
)
def test_fit_generators(classes: Mapping[Any, Any], generator: GeneratorSpec, seed: int) -> None:
    with desk() as here, refused_in_words():
        store = str(here.folder / "store")
        fitted = fit_generators(classes, generator, Execution(store=store), seed=seed)
        assert list(fitted.names) == list(classes)
        drawn = fitted.bank.sample(3, fitted.streams)
        assert torch.isfinite(drawn).all()
