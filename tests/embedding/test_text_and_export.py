"""Text vectors are made once per names and template; an export reads back as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from raycl.backbones.encoder import load_encoder
from raycl.compute.local_pool import LocalPool
from raycl.config.backbones import Backbone
from raycl.config.streams import EmbeddingsStream, FolderStream, TinyXtailStream
from raycl.embedding.export import write_set
from raycl.embedding.source import embedded
from raycl.embedding.text import read_text
from raycl.errors import ConfigError, DataError
from raycl.store.store import Store
from raycl.streams.source import Source
from raycl.streams.stream import read_source
from tests.embedding.made_images import save_folder

TINY = Backbone(name="tiny-clip")
NAMES = ("cat", "dog", "cat")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def test_text_vectors_are_the_encoders_own(store: Store) -> None:
    found = read_text(NAMES, TINY, store=store).vectors
    encoder = load_encoder(TINY, torch.device("cpu"))
    expected = encoder.encode_texts([f"a photo of a {name}." for name in NAMES]).numpy()
    assert np.array_equal(found, expected)
    assert np.array_equal(read_text(NAMES, TINY, store=store).vectors, expected)
    assert store.computed == {"text": 1} and store.reused == {"text": 1}


def test_a_hit_loads_no_model(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    scale = read_text(NAMES, TINY, store=store).logit_scale
    monkeypatch.setattr("raycl.embedding.text.load_encoder", lambda *_: pytest.fail("loaded"))
    assert read_text(NAMES, TINY, store=store).logit_scale == scale > 1


@pytest.mark.parametrize(
    ("names", "backbone", "made"),
    [
        (NAMES, TINY, 0),
        (NAMES, Backbone(name="tiny-clip", logit_scale=3.0), 0),
        (NAMES, Backbone(name="tiny-clip", template="a drawing of {}"), 1),
        (("dog", "cat", "cat"), TINY, 1),
        (("cat", "dogcat"), TINY, 1),
    ],
)
def test_names_and_template_are_the_key(
    store: Store, names: tuple[str, ...], backbone: Backbone, made: int
) -> None:
    read_text(NAMES, TINY, store=store)
    read_text(names, backbone, store=store)
    assert store.computed["text"] == 1 + made


def test_a_name_that_is_too_long_is_found_before_any_image(store: Store, tmp_path: Path) -> None:
    root = save_folder(tmp_path / "pets")
    for split in ("train", "test"):
        (root / split / "cat").rename(root / split / ("cat " * 60).strip())
    with pytest.raises(DataError, match="longer than the text tower's context"):
        embedded(FolderStream(paths=(str(root),)), TINY, store=store, pool=LocalPool())
    assert store.computed == {}


def test_a_template_encodes_text_again_and_no_image(store: Store, tmp_path: Path) -> None:
    spec = FolderStream(paths=(str(save_folder(tmp_path / "pets")),))
    first = embedded(spec, TINY, store=store, pool=LocalPool())
    other = Backbone(name="tiny-clip", template="a noise of a {}.")
    second = embedded(spec, other, store=store, pool=LocalPool())
    assert store.computed == {"text": 2, "features": 1, "features-chunk": 1}
    assert np.array_equal(first.source.train.x, second.source.train.x)
    assert not np.array_equal(first.source.text, second.source.text)


def same(a: Source, b: Source) -> bool:
    tables = [(getattr(a, n), getattr(b, n)) for n in ("train", "validation", "test")]
    return (
        all(np.array_equal(x.x, y.x) and np.array_equal(x.y, y.y) for x, y in tables)
        and a.class_names == b.class_names
        and a.domains == b.domains
        and np.array_equal(a.class_domain, b.class_domain)
        and np.array_equal(a.text, b.text)
        and bool(b.has_text.all())
    )


def test_an_export_is_an_embedding_set(store: Store, tmp_path: Path) -> None:
    source = embedded(TinyXtailStream(), TINY, store=store, pool=LocalPool()).source
    file = tmp_path / "set.parquet"
    write_set(source, file)
    assert same(source, read_source(EmbeddingsStream(paths=(str(file),))))
    with pytest.raises(ConfigError, match="several domains"):
        write_set(source, tmp_path / "set.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set.parquet", "store"]


def test_an_npz_export_is_one_too(store: Store, tmp_path: Path) -> None:
    spec = FolderStream(paths=(str(save_folder(tmp_path / "pets")),))
    source = embedded(spec, TINY, store=store, pool=LocalPool()).source
    write_set(source, tmp_path / "pets.npz")
    assert same(source, read_source(EmbeddingsStream(paths=(str(tmp_path / "pets.npz"),))))
