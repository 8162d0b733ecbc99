"""Features: the same bytes however they are made, made once, and honest about bad images."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raycl.backbones.content import backbone_digests
from raycl.backbones.encoder import Encoder, load_encoder
from raycl.compute.here import Here
from raycl.compute.local_pool import LocalPool
from raycl.config.backbones import Backbone
from raycl.config.streams import DigitsStream, FolderStream, ImageStream
from raycl.embedding.encoding import ChunkEncoder
from raycl.embedding.features import Features, embed
from raycl.embedding.identity import EmbeddingIdentity
from raycl.errors import DataError, StoppedError, WorkError
from raycl.observe.events import Computed, Event, Progress, Warned, WorkerLost
from raycl.store.store import Store
from raycl.streams.image_set import LabelledImages
from raycl.streams.images import read_images
from tests.conftest import BUCKET
from tests.embedding.made_images import damage, save_folder, stored_digests
from tests.engine.processes import descendants

TINY = Backbone(name="tiny-clip", batch=4)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raycl.embedding.identity.CHUNK", 4)


@pytest.fixture
def folder(tmp_path: Path) -> FolderStream:
    return FolderStream(paths=(str(save_folder(tmp_path / "pets")),))


def made(
    spec: ImageStream, place: Path, backbone: Backbone = TINY, **options: Any
) -> tuple[Features, Store]:
    store = Store.open(str(place))
    return embed(spec, backbone, store=store, pool=LocalPool(), **options), store


def test_vectors_are_the_encoders_own(folder: FolderStream, tmp_path: Path) -> None:
    found, store = made(folder, tmp_path / "store")
    images = read_images(folder)
    encoder = load_encoder(TINY, torch.device("cpu"))
    pixels = [encoder.preprocess(images.image(row)) for row in range(len(images))]
    expected = encoder.encode_images(torch.stack(pixels)).numpy()
    assert np.array_equal(found.x, expected)
    assert found.rows.tolist() == list(range(18)) and found.corrupt == ()
    assert store.computed == {"features": 1, "features-chunk": 5}
    assert list(store.records("features-chunk")) == [], "the features hold all of the chunks"


@pytest.mark.parametrize("chunk", [1, 8, 512])
def test_chunks_move_no_byte(
    folder: FolderStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    made(folder, tmp_path / "a")
    monkeypatch.setattr("raycl.embedding.identity.CHUNK", chunk)
    made(folder, tmp_path / "b")
    assert stored_digests(tmp_path / "a") == stored_digests(tmp_path / "b") != []


def test_a_second_call_finds_them_and_maps_the_file(folder: FolderStream, tmp_path: Path) -> None:
    first, _ = made(folder, tmp_path / "store")
    again, store = made(folder, tmp_path / "store")
    assert store.computed == {} and store.reused == {"features": 1}
    assert np.array_equal(first.x, again.x) and not again.x.flags.writeable
    assert "features.arrow" in mapping_of(again.x.ctypes.data)
    for file in (tmp_path / "store").rglob("*features.arrow"):
        file.unlink()
    assert np.array_equal(first.x, again.x), "a mapped file outlives its name"


def mapping_of(address: int) -> str:
    """The line of this process's memory map that holds an address (Linux)."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= address < last:
            return line
    raise AssertionError("mapped nowhere")


def test_damaged_features_are_made_again(folder: FolderStream, tmp_path: Path) -> None:
    first, _ = made(folder, tmp_path / "store")
    (file,) = (tmp_path / "store").rglob("*features.arrow")
    flipped = bytearray(file.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    file.write_bytes(flipped)
    again, store = made(folder, tmp_path / "store")
    assert store.computed["features"] == 1 and np.array_equal(first.x, again.x)


def test_a_bucket_gives_the_same_bytes(
    folder: FolderStream, tmp_path: Path, s3_address: str
) -> None:
    here, _ = made(folder, tmp_path / "store")
    uri = f"s3://{BUCKET}/{tmp_path.name}?endpoint_override={s3_address}&scheme=http"
    for _ in range(2):
        there = embed(folder, TINY, store=Store.open(uri), pool=LocalPool())
        assert np.array_equal(here.x, there.x)


def test_what_is_not_of_the_images_moves_no_key(folder: FolderStream) -> None:
    def key(spec: ImageStream, backbone: Backbone = TINY) -> str:
        return EmbeddingIdentity.of(spec, backbone).features.key

    same = {"tasks": 2, "shots": 1, "order_seed": 5, "shot_seed": 6}
    assert key(folder.model_copy(update=same)) == key(folder)
    assert key(folder, Backbone(name="tiny-clip", batch=4, template="{}", logit_scale=3.0)) == key(
        folder
    )
    others = [
        key(folder.model_copy(update={"corrupt": "skip"})),
        key(folder.model_copy(update={"test_fraction": 0.5})),
        key(folder, Backbone(name="tiny-clip", batch=8)),
        key(folder, Backbone(name="tiny-clip", batch=4, precision="bf16")),
        key(folder, Backbone(name="RN50:random", batch=4)),
        key(DigitsStream()),
    ]
    assert len({key(folder), *others}) == 7


def test_a_copied_folder_is_the_same_images(folder: FolderStream, tmp_path: Path) -> None:
    made(folder, tmp_path / "store")
    copy = FolderStream(paths=(str(save_folder(tmp_path / "elsewhere" / "pets")),))
    _, store = made(copy, tmp_path / "store")
    assert store.computed == {}
    (tmp_path / "elsewhere/pets/test/cat/000.jpg").write_bytes(
        (tmp_path / "elsewhere/pets/test/cat/001.jpg").read_bytes()
    )
    _, store = made(copy, tmp_path / "store")
    assert store.computed["features"] == 1


def test_corrupt_images_are_all_named_and_refused(folder: FolderStream, tmp_path: Path) -> None:
    root = Path(folder.paths[0])
    whole, _ = made(folder, tmp_path / "whole")
    bad = [damage(root / "train/cat/001.jpg"), damage(root / "test/dog/002.jpg")]
    (root / "test/cat/000.jpg").write_bytes(b"")
    events: list[Event] = []
    with pytest.raises(DataError, match="3 images cannot be decoded") as caught:
        made(folder, tmp_path / "store", observer=events.append)
    for file in (*bad, root / "test/cat/000.jpg"):
        assert str(file) in str(caught.value)
    assert "--skip-corrupt" in str(caught.value)
    assert any(isinstance(e, Warned) and "cannot be decoded" in e.message for e in events)

    skip = folder.model_copy(update={"corrupt": "skip"})
    kept, store = made(skip, tmp_path / "store")
    assert store.computed == {"features": 1} and store.reused == {"features-chunk": 5}
    places = [read_images(skip).place(row) for row in range(18)]
    left = [row for row in range(18) if places[row] not in kept.corrupt]
    assert kept.rows.tolist() == left and len(kept.corrupt) == 3
    assert np.array_equal(kept.x, whole.x[left]), "neighbours of a corrupt image do not move"
    assert "3 images cannot be decoded" in kept.warnings[0]
    found, _ = made(skip, tmp_path / "store")
    assert found.corrupt == kept.corrupt


def test_nothing_but_corrupt_images_is_refused_in_any_case(
    folder: FolderStream, tmp_path: Path
) -> None:
    for file in Path(folder.paths[0]).rglob("*.jpg"):
        file.write_bytes(b"not an image")
    with pytest.raises(DataError, match="18 images cannot be decoded"):
        made(folder.model_copy(update={"corrupt": "skip"}), tmp_path / "store")


class _Pictures:
    """Black pictures, behind a disk of which each test has its own story."""

    def __init__(self, story: Callable[[int], None] = lambda row: None) -> None:
        self.story = story

    def place(self, row: int) -> str:
        return f"picture {row}"

    def image(self, row: int) -> Image.Image:
        self.story(row)
        return Image.new("RGB", (9, 7))


def pretend(monkeypatch: pytest.MonkeyPatch, images: int, pictures: _Pictures) -> None:
    """Put a set of images in the place of the one that is read."""
    labelled = LabelledImages(
        name="pretended",
        class_names=("one",),
        class_domain=np.zeros(1, np.int64),
        domains=("pretended",),
        labels=np.zeros(images, np.int64),
        splits=np.full(images, "train"),
        pictures=pictures,
    )
    for module in ("encoding", "features"):
        monkeypatch.setattr(f"raycl.embedding.{module}.read_images", lambda spec: labelled)


def test_one_image_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 1, _Pictures())
    found, store = made(DigitsStream(), tmp_path / "store")
    assert found.x.shape == (1, load_encoder(TINY, torch.device("cpu")).width)
    assert store.computed == {"features": 1, "features-chunk": 1}


def test_decoding_runs_ahead_of_encoding_and_not_too_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raycl.embedding.identity.CHUNK", 40)
    monkeypatch.setattr("raycl.embedding.features._decoders", lambda *_: 1)
    met: list[int] = []
    pretend(monkeypatch, 40, _Pictures(met.append))
    honest, decoded = Encoder.encode_images, []

    def watching(self: Encoder, pixels: torch.Tensor) -> torch.Tensor:
        ahead = min(40, 4 * (len(decoded) + 1) + 4)
        deadline = time.monotonic() + 20
        while len(met) < ahead and time.monotonic() < deadline:
            time.sleep(0.001)  # encoding: nothing but the threads can decode now
        time.sleep(0.02)
        decoded.append(len(met))
        return honest(self, pixels)

    monkeypatch.setattr(Encoder, "encode_images", watching)
    made(DigitsStream(), tmp_path / "store")
    assert len(decoded) == 10 and sorted(met) == list(range(40))
    for encoded, count in enumerate(decoded, start=1):
        own = 4 * encoded
        assert min(40, own + 4) <= count <= own + 9, "a pass ahead, two at most"


def test_passes_run_beside_each_other_on_one_thread_each(
    folder: FolderStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raycl.embedding.features._decoders", lambda *_: 2)
    monkeypatch.setattr("raycl.embedding.identity.CHUNK", 16)
    alone, _ = made(folder, tmp_path / "alone")
    honest, together, threads = Encoder.encode_images, threading.Barrier(2, timeout=20), []

    def meeting(self: Encoder, pixels: torch.Tensor) -> torch.Tensor:
        if len(threads) < 4:  # of the first chunk
            together.wait()
        threads.append(torch.get_num_threads())
        return honest(self, pixels)

    monkeypatch.setattr(Encoder, "encode_images", meeting)
    found, _ = made(folder, tmp_path / "store")
    assert np.array_equal(alone.x, found.x) and set(threads) == {1}


def test_trouble_of_the_disk_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[int] = []

    def once(row: int) -> None:
        met.append(row)
        if row == 5 and met.count(5) < 3:
            raise OSError(5, "Input/output error")

    pretend(monkeypatch, 9, _Pictures(once))
    found, _ = made(DigitsStream(), tmp_path / "store")
    assert len(found.x) == 9 and met.count(5) == 3


def test_trouble_that_stays_is_no_corrupt_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def always(row: int) -> None:
        if row == 5:
            raise OSError(5, "Input/output error")

    pretend(monkeypatch, 9, _Pictures(always))
    with pytest.raises(WorkError, match="Input/output error"):
        made(DigitsStream(), tmp_path / "store")
    assert len(list(Store.open(str(tmp_path / "store")).records("features-chunk"))) == 2


def test_an_overflow_names_images_and_precision(
    folder: FolderStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Encoder.encode_images

    def overflowing(self: Encoder, pixels: torch.Tensor) -> torch.Tensor:
        out = honest(self, pixels)
        out[1, 3] = float("inf")
        return out

    monkeypatch.setattr(Encoder, "encode_images", overflowing)
    bf16 = Backbone(name="tiny-clip", batch=4, precision="bf16")
    with pytest.raises(DataError, match="NaN or infinity for 1 images at bf16") as caught:
        made(folder, tmp_path / "store", bf16)
    assert read_images(folder).place(1) in str(caught.value)
    assert "backbone.precision=fp32" in str(caught.value)


def test_a_stop_between_passes_keeps_finished_chunks(
    folder: FolderStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = made(folder, tmp_path / "whole")
    asked: list[bool] = []
    events: list[Event] = []

    def stopping() -> bool:
        asked.append(True)
        return len(asked) > 2

    with pytest.raises(StoppedError, match="between two passes"):
        made(folder, tmp_path / "store", stopping=stopping)
    found, store = made(folder, tmp_path / "store", observer=events.append)
    assert store.reused == {"features-chunk": 2} and store.computed["features-chunk"] == 3
    assert np.array_equal(found.x, whole.x)
    told = [(e.done, e.total) for e in events if isinstance(e, Progress)]
    assert told == [(8, 18), (12, 18), (16, 18), (18, 18)]


def test_images_that_change_meanwhile_are_not_taken_for_the_old(
    folder: FolderStream, tmp_path: Path
) -> None:
    file = Path(folder.paths[0]) / "test/dog/002.jpg"
    before = file.read_bytes()

    def change(event: Event) -> None:
        if isinstance(event, Computed) and file.read_bytes() == before:
            file.write_bytes((file.parent / "001.jpg").read_bytes())

    with pytest.raises(DataError, match="changed while they were embedded"):
        made(folder, tmp_path / "store", observer=change)
    store = Store.open(str(tmp_path / "store"))
    assert list(store.records()) == [], "neither features nor chunks of mixed images"
    whole, _ = made(folder, tmp_path / "whole")
    again, _ = made(folder, tmp_path / "store")
    assert np.array_equal(whole.x, again.x)


def test_two_processes_make_one_set(folder: FolderStream, tmp_path: Path) -> None:
    stores = [Store.open(str(tmp_path / "store")) for _ in range(2)]
    found: list[Features] = []
    threads = [
        threading.Thread(
            target=lambda store=store: found.append(
                embed(folder, TINY, store=store, pool=LocalPool())
            )
        )
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(store.computed["features"] for store in stores) == 1
    assert np.array_equal(found[0].x, found[1].x)


def test_many_chunks_hold_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 400, _Pictures())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    now = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (now + 40, hard))
    try:
        found, store = made(DigitsStream(), tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(found.x) == 400 and store.computed["features-chunk"] == 100


def test_a_worker_refuses_other_images(folder: FolderStream, tmp_path: Path) -> None:
    weights = backbone_digests(TINY)
    other = EmbeddingIdentity(folder, TINY, ("0" * 64,), weights)
    with pytest.raises(DataError, match="not those that are to be embedded"):
        ChunkEncoder(other, str(tmp_path / "store"), "cpu", 1, Here())


@pytest.mark.ray
def test_a_killed_worker_costs_its_chunk_and_moves_no_byte(
    folder: FolderStream, tmp_path: Path, ray_session: object
) -> None:
    from raycl.compute.ray_pool import RayPool

    many = FolderStream(paths=(str(save_folder(tmp_path / "many" / "pets", train=60)),))
    here, _ = made(many, tmp_path / "here")
    events: list[Event] = []
    killed: list[int] = []

    def watch(event: Event) -> None:
        events.append(event)
        if isinstance(event, Computed) and not killed:
            workers = [p for p, name in descendants(os.getpid()) if name.startswith("ray::Pool")]
            killed.append(workers[0])
            os.kill(workers[0], signal.SIGKILL)

    store = Store.open(str(tmp_path / "there"))
    with RayPool(watch, workers=2) as pool:
        there = embed(many, TINY, store=store, pool=pool, observer=watch)
    assert killed and any(isinstance(e, WorkerLost) for e in events)
    assert np.array_equal(here.x, there.x)
    assert stored_digests(tmp_path / "here") == stored_digests(tmp_path / "there")
    total = store.computed["features-chunk"] + store.reused["features-chunk"]
    assert total == 32 and store.computed["features-chunk"] >= 30
