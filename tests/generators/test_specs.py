"""Specs of generators: what may be written, and what has a key of its own."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from raycl.config.generators import GENERATORS, GeneratorSpec, VAEGenerator, parse_generator
from raycl.config.spec import canonical, identity
from raycl.errors import ConfigError

adapter: TypeAdapter[GeneratorSpec] = TypeAdapter(GeneratorSpec)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("vae", {"kind": "vae"}),
        ("shared_vae", {"kind": "shared_vae"}),
        ("gaussian", {"kind": "gaussian"}),
        ("gaussian:full", {"kind": "gaussian", "covariance": "full"}),
        ("gmm:8", {"kind": "gmm", "components": 8}),
        ("real:16", {"kind": "real", "per_class": 16}),
    ],
)
def test_what_may_be_written(text: str, meant: dict[str, Any]) -> None:
    tree = parse_generator(text)
    assert tree == meant
    adapter.validate_python(tree)


@pytest.mark.parametrize(
    "text", ["vae:big", "real:", "real:x", "gmm:2.5", "real:²", "gaussian:", "vea"]
)
def test_what_may_not(text: str) -> None:
    with pytest.raises((ConfigError, ValidationError)):
        adapter.validate_python(parse_generator(text))


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0}, {"batch": 1}, {"lr": 0}, {"latent": True}, {"precision": "fp8"},
        {"output_noise": "some"}, {"width": 8},
    ],
    ids=str,
)  # fmt: skip
def test_what_a_vae_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VAEGenerator(**change)


def test_every_kind_and_every_option_has_a_key_of_its_own() -> None:
    keys = [canonical(identity(spec())) for spec in GENERATORS]
    for field, value in (("parity", True), ("precision", "bf16"), ("weights", "fp16"), ("lr", 1.0)):
        keys.append(canonical(identity(VAEGenerator(**{field: value}))))
    assert len(set(keys)) == len(keys)
