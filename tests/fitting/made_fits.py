"""Named vectors to fit, and what a store then holds of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raycl.compute.local_pool import LocalPool
from raycl.config.generators import GeneratorSpec, VAEGenerator
from raycl.fitting.fitted import Fitted
from raycl.fitting.parallel import fit_generators
from raycl.store.store import Store
from tests.generators.made_classes import SIZES, made_class

QUICK_VAE = VAEGenerator(latent=6, hidden=24, epochs=12, batch=16, lr=2e-3)


def made_vectors(sizes: tuple[int, ...] = SIZES) -> dict[str, NDArray[np.float32]]:
    return {f"class {c}": made_class(c, n).vectors.numpy() for c, n in enumerate(sizes)}


def fitted(
    classes: dict[str, Any], place: Path, generator: GeneratorSpec = QUICK_VAE, **options: Any
) -> Fitted:
    """In this process, with a store that is opened anew."""
    given = {"seed": 0, "store": Store.open(str(place)), "pool": LocalPool(), **options}
    return fit_generators(classes, generator, **given)


def tensor_digests(place: Path) -> dict[str, str]:
    """The bytes of every stored generator, by key."""
    root = place / "artefacts"
    return {
        str(file.parent.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*generator.safetensors")
    }


def record_bytes(place: Path) -> dict[str, bytes]:
    """Every generator's record, which another fit of the class would replace."""
    return {
        str(file.parent): file.read_bytes()
        for file in (place / "artefacts/generator").rglob("record.json")
    }
