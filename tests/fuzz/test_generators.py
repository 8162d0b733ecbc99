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
WIDTH = 3
SIZES = st.sampled_from([1, 1, 2, 3, 5, 40])
SCALES = st.sampled_from([1.0, 0.0, 1e-38, 1e-12, 1e4, 6e4, 1e12, 3e38, 1e300])


@st.composite
def vectors(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES) -> Any:
    """The vectors of a class: few or many, tiny or huge, constant in part, kept in some way."""
    random = np.random.default_rng(draw(st.integers(0, 99)))
    with np.errstate(over="ignore", under="ignore"):
        x = random.normal(size=(draw(sizes), WIDTH)) * draw(SCALES)
        if draw(st.booleans()):
            x[:, : draw(st.integers(0, WIDTH))] = draw(SCALES)
        x = x.astype(draw(st.sampled_from(["f2", "f4", "f8", ">f4"])))
    match draw(st.sampled_from(["", "", "tensor", "half", "turned", "every other", "kept"])):
        case "tensor" if x.dtype.isnative:
            return torch.from_numpy(x).requires_grad_()
        case "half" if x.dtype.isnative:
            return torch.from_numpy(x).to(torch.bfloat16)
        case "turned":
            return np.asfortranarray(x)
        case "every other":
            return np.repeat(x, 2, axis=0)[::2]
        case "kept":
            x.flags.writeable = False
    return x


@st.composite
def spoilt(draw: st.DrawFn) -> Any:
    """What somebody takes for the vectors of a class, and is not."""
    x = np.array(draw(vectors(st.sampled_from([1, 3])).filter(lambda x: isinstance(x, np.ndarray))))
    match draw(st.sampled_from(["none", "cell", "dtype", "flat", "narrow", "deep", "list", "int"])):
        case "none":
            return x[:0]
        case "cell":
            x[-1] = draw(st.sampled_from([np.nan, np.inf]))
        case "dtype":
            with np.errstate(all="ignore"):
                return x.astype(draw(st.sampled_from(["?", "c8", "U3", "O", "S2"])))
        case "flat":
            return x.reshape(-1)
        case "narrow":
            return x[:, :1]
        case "deep":
            return x[None]
        case "list":
            return x.tolist()
        case "int":
            return torch.ones(3, WIDTH, dtype=torch.int8)
    return x


sound = st.dictionaries(names, vectors(), min_size=1, max_size=4)
odd = st.dictionaries(st.one_of(names, st.integers()), st.one_of(vectors(), spoilt()), max_size=3)


@examples(80)
@given(
    classes=st.one_of(sound, sound, odd),
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
