"""Classes are captioned over a pool: once, whole, each by itself, whatever dies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raycl.captions import worker as worker_room
from raycl.captions.export import captions_table, write_captions
from raycl.captions.parallel import Captions, caption_classes, drawn_rows
from raycl.captions.rows import LABEL_BYTES, SEED_BYTES
from raycl.compute.local_pool import LocalPool
from raycl.config.backbones import Backbone
from raycl.config.captions import (
    AttributesCaptioner,
    BLIPCaptioner,
    Captioning,
    TemplateCaptioner,
)
from raycl.config.seeds import rng
from raycl.config.streams import DigitsStream
from raycl.errors import DataError, StoppedError, StoreError
from raycl.observe.events import Event, Warned
from raycl.store.store import Store
from raycl.streams.opened import OpenedImages
from tests.captions.made_blip import save_blip

CLIP = Backbone(name="tiny-clip", batch=8)
FEW = AttributesCaptioner(slots=("ink", "ground"))


@dataclass
class Noise:
    """Pictures of noise; some cannot be decoded. Counts what was opened."""

    broken: frozenset[int] = frozenset()
    opened: Counter[int] = field(default_factory=Counter)
    identity = described = {"kind": "noise"}  # noqa: RUF012
    contents = ("noise",)

    def image(self, row: int) -> Image.Image:
        self.opened[row] += 1
        if row in self.broken:
            raise DataError("it cannot be decoded", got=self.place(row))
        pixels = rng(row, "noise").integers(0, 20 + 37 * row % 230, (20, 10 + row % 2, 3))
        return Image.fromarray(pixels.astype(np.uint8))

    def place(self, row: int) -> str:
        return f"noise/{row}.png"


CLASSES = [("cat", range(10)), ("dog", range(20, 26)), ("cat", range(40, 43))]
"""Two domains have a cat each."""


def captioned(
    store: Store, images: Any, captions: Captioning, classes: Any = CLASSES, **more: Any
) -> Captions:
    return caption_classes(
        images,
        classes,
        captions,
        **{"seed": 0, "clip": CLIP, "pool": LocalPool(), **more},
        store=store,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def test_a_class_is_captioned_once_whatever_stands_beside_it(store: Store) -> None:
    images = Noise()
    first = captioned(store, images, Captioning(captioner=FEW, per_class=5))
    assert (first.computed, first.reused) == (3, 0)
    assert [c.images for c in first.classes] == [5, 5, 3]
    assert set(images.opened.values()) == {1}
    other = captioned(
        store, images, Captioning(captioner=FEW, per_class=5, duplicates="keep"), CLASSES[::-1]
    )
    assert (other.computed, other.reused) == (0, 3)
    assert [c.key for c in other.classes] == [c.key for c in first.classes][::-1]
    assert captioned(store, images, Captioning(captioner=FEW, per_class=5), seed=1).computed == 2
    assert captioned(store, images, Captioning(per_class=5)).computed == 3, "other slots"


def test_captions_come_from_their_class_and_bytes_are_counted(store: Store) -> None:
    made = captioned(store, Noise(), Captioning(captioner=FEW, duplicates="keep"))
    for (name, rows), c in zip(CLASSES, made.classes, strict=True):
        assert c.name == name and {x.source for x in c.captions} == set(rows)
        words = sum(len(x.text.encode()) for x in c.captions)
        assert c.caption_bytes == words + (SEED_BYTES + LABEL_BYTES) * len(c.captions)
        assert c.image_bytes == sum(3 * 20 * (10 + row % 2) for row in rows)
    seeds = [x.seed for c in made.classes for x in c.captions]
    assert len(set(seeds)) == len(seeds)


def test_duplicates_are_dropped_and_the_rest_may_be_filtered(store: Store) -> None:
    same = Captioning(captioner=TemplateCaptioner())
    assert [len(c.captions) for c in captioned(store, Noise(), same).classes] == [1, 1, 1]
    all_ = captioned(store, Noise(), Captioning(captioner=FEW, duplicates="keep"))
    half = captioned(store, Noise(), Captioning(captioner=FEW, duplicates="keep", keep=0.5))
    for every, kept in zip(all_.classes, half.classes, strict=True):
        assert len(kept.captions) == int(0.5 * len(every.captions) + 0.5)
        left_out = {x.score for x in every.captions} - {x.score for x in kept.captions}
        assert all(min(x.score for x in kept.captions) >= score for score in left_out)
    liked = captioned(store, Noise(), Captioning(captioner=TemplateCaptioner(), keep=0.5))
    assert all(x.score is not None for c in liked.classes for x in c.captions), "by CLIP"


def test_a_class_without_an_image_has_no_caption(store: Store) -> None:
    made = captioned(store, Noise(), Captioning(captioner=FEW), [("cat", []), ("dog", [1])])
    assert [len(c.captions) for c in made.classes] == [0, 1]


def test_drawn_rows_are_the_classs_own_and_need_no_order() -> None:
    rows = list(range(100))
    assert drawn_rows(rows, 10, 0, "cat") == drawn_rows(rows[::-1], 10, 0, "cat")
    assert drawn_rows(rows, 10, 0, "cat") != drawn_rows(rows, 10, 0, "dog")
    assert drawn_rows(rows, 10, 0, "cat") != drawn_rows(rows, 10, 1, "cat")
    assert drawn_rows(rows[:3], 10, 0, "cat") == (0, 1, 2)


def test_a_class_that_cannot_be_captioned_costs_the_others_nothing(store: Store) -> None:
    said: list[Event] = []
    images = Noise(broken=frozenset(range(20, 26)))
    with pytest.raises(DataError, match=r"'dog'.*noise/2"):
        captioned(store, images, Captioning(captioner=FEW), observer=said.append)
    assert any(isinstance(event, Warned) and "dog" in event.message for event in said)
    assert captioned(store, Noise(), Captioning(captioner=FEW)).computed == 1


def test_images_that_cannot_be_decoded_are_refused_or_left_out(store: Store) -> None:
    images = Noise(broken=frozenset({21}))
    with pytest.raises(DataError, match=r"noise/21.png"):
        captioned(store, images, Captioning(captioner=FEW))
    made = captioned(store, images, Captioning(captioner=FEW), skip_corrupt=True)
    assert made.corrupt == ("noise/21.png",) and made.computed == 0
    assert made.classes[1].images == 5


def test_a_stopped_class_goes_on_where_it_was(store: Store) -> None:
    """Stopped behind the first batch, it opens no image of that batch again."""
    images, whole = Noise(), Noise()
    rows = [("cat", range(20))]
    spec = Captioning(captioner=FEW)

    def stopping() -> bool:
        return len(images.opened) >= 8

    with pytest.raises(StoppedError, match="captions of 'cat'"):
        captioned(store, images, spec, rows, stopping=stopping)
    assert sum(images.opened.values()) == 8
    found = captioned(store, images, spec, rows)
    assert set(images.opened.values()) == {1} and len(images.opened) == 20
    assert not list(store.records("captions-partial"))
    other = Store.open(store.uri + "-other")
    assert found.classes == captioned(other, whole, spec, rows).classes


def test_a_killed_worker_leaves_what_it_saved(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_room, "SAVE_EVERY_SECONDS", 0.0)
    images = Noise()
    say = worker_room.ClassCaptioner._say
    batches: list[int] = []

    def dies(self: Any, name: str, pictures: Any) -> Any:
        batches.append(len(pictures))
        if len(batches) == 3:
            raise SystemExit(9)  # as a kill, past every `except Exception`
        return say(self, name, pictures)

    monkeypatch.setattr(worker_room.ClassCaptioner, "_say", dies)
    with pytest.raises(SystemExit):
        captioned(store, images, Captioning(captioner=FEW), [("cat", range(30))])
    batches[:] = [0] * 5
    captioned(store, images, Captioning(captioner=FEW), [("cat", range(30))])
    again = [row for row, count in images.opened.items() if count > 1]
    assert again == list(range(16, 24)), "the batch that it was at, no other"


def test_digits_of_a_stream_travel_as_their_spec(store: Store) -> None:
    images = OpenedImages(DigitsStream(tasks=2, order_seed=3))
    assert OpenedImages(*images.__reduce__()[1]).image(5).tobytes() == images.image(5).tobytes()
    assert images.identity == OpenedImages(DigitsStream()).identity, "tasks name no picture"
    made = captioned(store, images, Captioning(captioner=FEW, per_class=4), [("3", range(9))])
    assert made.classes[0].captions[0].text == "a white 3 on black"
    assert made.classes[0].side == (8, 8)


def test_a_table_of_captions_is_written_whole_or_not_at_all(store: Store, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    made = captioned(store, Noise(), Captioning(captioner=FEW, per_class=4))
    table = captions_table(list(enumerate(made.classes)))
    write_captions(table, tmp_path / "c.parquet")
    back = pq.ParquetFile(tmp_path / "c.parquet").read(use_threads=False)
    assert back.column_names == ["task", "class", "caption", "seed", "source", "score"]
    assert back.num_rows == sum(len(c.captions) for c in made.classes) == table.num_rows
    with pytest.raises(StoreError, match="cannot be written"):
        write_captions(table, tmp_path / "no" / "c.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.parquet", "store"]


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("models") / "blip")


def test_blip_says_something_of_each_picture(store: Store, blip: Path) -> None:
    spec = BLIPCaptioner(model=str(blip), batch=4, longest=12)
    made = captioned(store, Noise(), Captioning(captioner=spec, duplicates="keep"))
    texts = [x.text for c in made.classes for x in c.captions]
    assert all(text.startswith("a picture of") and len(text) > 12 for text in texts)
    assert len({x.score for c in made.classes for x in c.captions}) > 1, "pictures matter"
    moved = blip.rename(blip.with_name("elsewhere"))
    again = BLIPCaptioner(model=str(moved), batch=4, longest=12)
    found = captioned(store, Noise(), Captioning(captioner=again, duplicates="keep"))
    assert found.computed == 0, "a moved folder is the same model"
    greedy = BLIPCaptioner(model=str(moved), batch=4, longest=12, beams=1, prefix="")
    new = captioned(store, Noise(), Captioning(captioner=greedy))
    assert new.computed == 3 and all(x.score is None for c in new.classes for x in c.captions)
    moved.rename(blip)


def test_blips_captions_do_not_depend_on_their_batch(store: Store, blip: Path) -> None:
    spec = Captioning(captioner=BLIPCaptioner(model=str(blip), batch=3), duplicates="keep")
    four = captioned(store, Noise(), spec, [("cat", range(4))]).classes[0].captions
    last = captioned(store, Noise(), spec, [("cat", [3])]).classes[0].captions
    assert last[0].text == four[3].text
    assert last[0].score == pytest.approx(four[3].score, rel=1e-5)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "lacks config.json"),
        ("model.safetensors", "lacks model.safetensors"),
        ("tokenizer.json", "lacks tokenizer.json or vocab.txt"),
    ],
)
def test_an_incomplete_folder_of_blip_is_told(
    store: Store, blip: Path, tmp_path: Path, missing: str, message: str
) -> None:
    import shutil

    shutil.copytree(blip, tmp_path / "blip")
    (tmp_path / "blip" / missing).unlink()
    (tmp_path / "blip" / "vocab.txt").unlink()
    spec = BLIPCaptioner(model=str(tmp_path / "blip"))
    with pytest.raises(DataError, match=message):
        captioned(store, Noise(), Captioning(captioner=spec))


def test_broken_weights_of_blip_are_told(store: Store, blip: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(blip, tmp_path / "blip")
    weights = tmp_path / "blip" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    spec = BLIPCaptioner(model=str(tmp_path / "blip"))
    with pytest.raises(DataError, match="cannot be loaded"):
        captioned(store, Noise(), Captioning(captioner=spec))


def test_a_model_that_is_nowhere_says_where_it_may_be_put(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="name a folder that holds it"):
        captioned(store, Noise(), Captioning(captioner=BLIPCaptioner(model="nobody/no-such-blip")))
    with pytest.raises(DataError, match="no such folder"):
        captioned(store, Noise(), Captioning(captioner=BLIPCaptioner(model="./no-such-blip")))
