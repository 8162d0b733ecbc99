"""One file that stands alone: what is read back is what was fitted, or a clear refusal."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import safetensors.torch
import torch

from raycl.config.generators import GaussianGenerator, GeneratorSpec, RealVectors, VAEGenerator
from raycl.errors import DataError
from raycl.fitting.export import BANK, CLASSES, read_bank, write_bank
from raycl.fitting.fitted import Fitted
from raycl.store.store import Store
from tests.fitting.made_fits import fitted, made_vectors
from tests.generators.made_classes import QUICK, name_of

HALF = VAEGenerator(latent=6, hidden=24, epochs=2, batch=16, weights="fp16")


@pytest.mark.parametrize("spec", [*QUICK, HALF], ids=name_of)
def test_what_is_read_is_what_was_fitted(spec: GeneratorSpec, tmp_path: Path) -> None:
    names = random.Random(1).sample(list(made_vectors().items()), 8)
    found = fitted(dict(names), tmp_path / "store", spec)
    write_bank(found, tmp_path / "out")
    for place in (tmp_path / "out", tmp_path / "out" / BANK):
        back = read_bank(place)
        assert (back.generator, back.names, back.streams) == (spec, found.names, found.streams)
        state = back.bank.state_dict()
        assert state.keys() == found.bank.state_dict().keys()
        for name, tensor in found.bank.state_dict().items():
            assert torch.equal(state[name], tensor) and state[name].dtype == tensor.dtype
    plain = safetensors.torch.load_file(tmp_path / "out" / BANK)
    assert plain.keys() == state.keys(), "readable without raycl"
    table = json.loads((tmp_path / "out" / CLASSES).read_text())
    assert [c["name"] for c in table["classes"]] == list(found.names)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {BANK, CLASSES}


def test_writing_holds_one_class_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fitted(made_vectors(), tmp_path / "store", HALF)
    monkeypatch.setattr(Fitted, "bank", property(lambda self: pytest.fail("all in memory")))
    write_bank(found, tmp_path / "out")
    monkeypatch.undo()
    assert len(read_bank(tmp_path / "out").bank) == 8


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    first = fitted(made_vectors(), tmp_path / "store", GaussianGenerator())
    write_bank(first, tmp_path / "out")
    before = (tmp_path / "out" / BANK).read_bytes()
    second = fitted(made_vectors((9, 9, 9)), tmp_path / "store", RealVectors())
    Store.open(str(tmp_path / "store")).discard(second.keys[-1])
    with pytest.raises(OSError, match="no longer in the store"):
        write_bank(second, tmp_path / "out")
    assert (tmp_path / "out" / BANK).read_bytes() == before
    assert {p.name for p in (tmp_path / "out").iterdir()} == {BANK, CLASSES}


@pytest.mark.parametrize("damage", ["absent", "cut", "text", "foreign", "metadata"])
def test_what_is_no_bank_is_refused(damage: str, tmp_path: Path) -> None:
    write_bank(fitted(made_vectors(), tmp_path / "store", GaussianGenerator()), tmp_path)
    file = tmp_path / BANK
    match damage:
        case "absent":
            file.unlink()
            file = tmp_path / "no" / BANK
        case "cut":
            file.write_bytes(file.read_bytes()[:-100])
        case "text":
            file.write_bytes(b"not tensors at all")
        case "foreign":
            safetensors.torch.save_file({"mean": torch.zeros(2, 3)}, file)
        case "metadata":
            tensors = safetensors.torch.load_file(file)
            named = {"raycl": "1", "generator": '{"kind": "vae"}', "names": "[]", "streams": "[]"}
            safetensors.torch.save_file(tensors, file, named)
    with pytest.raises(DataError, match=r"no bank here|not a bank|not a whole"):
        read_bank(file)
