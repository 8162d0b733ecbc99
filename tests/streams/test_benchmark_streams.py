"""X-TAIL, CIFAR-100 before ImageNet-R and class-incremental streams over named data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from raycl.config.experiment import Experiment
from raycl.config.loading import load
from raycl.config.methods import NCM
from raycl.config.sources.catalogue import entry_of, joined_streams
from raycl.config.sources.entry import CoOpLayout
from raycl.config.streams import NamedStream, parse_stream
from raycl.engine.identity import RunIdentity
from raycl.errors import ConfigError
from raycl.streams.images import read_images, source_of_features
from raycl.streams.sources.placing import OVERRIDE
from raycl.streams.stream import Stream, build
from tests.streams.made_sources import make_source

TRAIN, VAL, TEST = 18, 1, 2
XTAIL = joined_streams()["xtail"]


def stream_of(spec: NamedStream, **options: Any) -> Stream:
    """The stream with vectors that are nobody's."""
    experiment = Experiment(method=NCM(), stream=spec, **options).resolved()
    images = read_images(experiment.stream)  # type: ignore[arg-type]
    vectors = np.random.default_rng(0).normal(size=(len(images), 4)).astype(np.float32)
    text = np.ones((len(images.class_names), 4), np.float32)
    return build(experiment, source_of_features(images, vectors, np.arange(len(images)), text))


@pytest.fixture(scope="module")
def xtail(tmp_path_factory: pytest.TempPathFactory) -> str:
    """All ten domains with all their classes, as lists: their images are opened by nobody here."""
    root = tmp_path_factory.mktemp("xtail")
    for name in XTAIL:
        _write_lists(root, name)
    return str(root)


def _write_lists(root: Path, name: str) -> None:
    entry = entry_of(name)
    folder, layout = root / entry.folders[0], entry.layouts[0]
    folder.mkdir()
    counts = {"train": TRAIN, "val": VAL, "test": TEST}
    if isinstance(layout, CoOpLayout):
        # Two domains name a class alike.
        names = ["forest" if c == 1 else f"{name}_{c}" for c in range(entry.classes)]
        tree = {
            split: [
                [f"{c}/{split}{n}.jpg", c, names[c]] for c in range(len(names)) for n in range(k)
            ]
            for split, k in counts.items()
        }
        (folder / layout.file).write_text(json.dumps(tree))
    elif name == "aircraft":
        names = [f"plane {c}" for c in range(entry.classes)]
        (folder / "variants.txt").write_text("\n".join(names))
        for split, k in counts.items():
            lines = [f"{c:04d}{n:03d} {one}" for c, one in enumerate(names) for n in range(k)]
            (folder / f"images_variant_{split}.txt").write_text("\n".join(lines))
    else:
        del counts["val"]
        for split, k in (("train", TRAIN), ("t10k", TEST)):
            for file, shape in (
                (f"{split}-images-idx3-ubyte", (10 * k, 28, 28)),
                (f"{split}-labels-idx1-ubyte", (10 * k,)),
            ):
                data = np.tile(np.arange(10), k) if len(shape) == 1 else np.zeros(shape)
                head = np.asarray([0x0800 + len(shape), *shape], ">u4").tobytes()
                (folder / file).write_bytes(head + data.astype(np.uint8).tobytes())
    expected = {split: k * entry.classes for split, k in counts.items()}
    (folder / OVERRIDE).write_text(yaml.safe_dump({"counts": expected, "checksums": {}}))


@pytest.mark.parametrize("name", ["xtail", "xtail-ii"])
def test_xtail_is_ten_domains_in_order_in_one_label_space(xtail: str, name: str) -> None:
    names = joined_streams()[name]
    stream = stream_of(NamedStream(names=names, root=xtail))
    assert stream.name == name and stream.protocol == "x-tail"
    assert [len(task.classes) for task in stream.tasks] == [entry_of(n).classes for n in names]
    assert stream.classes == 1100 == sum(len(task.classes) for task in stream.tasks)
    assert [c for task in stream.tasks for c in task.classes] == list(range(1100))
    assert stream.class_names.count("forest") == 8, "the same name in two domains is two classes"
    assert [len(task.test) for task in stream.tasks] == [
        TEST * len(t.classes) for t in stream.tasks
    ]


def test_both_orders_hold_the_same_domains() -> None:
    one, two = joined_streams()["xtail"], joined_streams()["xtail-ii"]
    assert sorted(one) == sorted(two) and one != two
    assert list(one) == [
        "aircraft", "caltech101", "dtd", "eurosat", "flowers",
        "food101", "mnist", "pets", "cars", "sun397",
    ]  # fmt: skip
    assert list(two) == [
        "cars", "aircraft", "pets", "food101", "sun397",
        "mnist", "flowers", "dtd", "caltech101", "eurosat",
    ]  # fmt: skip


def test_sixteen_shots_and_all_of_them(xtail: str) -> None:
    few = stream_of(NamedStream(names=XTAIL, root=xtail, shots=16))
    full = stream_of(NamedStream(names=XTAIL, root=xtail))
    for task in few.tasks:
        counts = np.bincount(task.train.y.numpy(), minlength=1100)[list(task.classes)]
        assert set(counts.tolist()) == {16}
    assert {len(task.train) / len(task.classes) for task in full.tasks} == {TRAIN}
    # The domains' own validation images are held out; MNIST has none, and gives some up.
    held = {len(task.held_out) / len(task.classes) for task in full.tasks}
    assert held == {VAL, 2.0}


def test_draws_follow_their_own_seed_alone(xtail: str) -> None:
    def rows(**seeds: int) -> list[tuple[int, ...]]:
        stream = stream_of(NamedStream(names=XTAIL, root=xtail, shots=16, **seeds))
        return [tuple(task.train.rows) for task in stream.tasks]

    assert rows(shot_seed=1) == rows(shot_seed=1, order_seed=9)
    assert rows(shot_seed=1) != rows(shot_seed=2)


def test_cifar_before_imagenet_r(tmp_path: Path) -> None:
    for name in ("cifar100", "imagenet-r"):
        make_source(tmp_path, name)
    tree = parse_stream("c2r")
    assert tree == {"kind": "named", "names": ["cifar100", "imagenet-r"]}
    two = stream_of(NamedStream(names=tuple(tree["names"]), root=str(tmp_path)))
    assert two.name == "c2r" and two.protocol == "x-tail"
    assert [task.classes for task in two.tasks] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    four = stream_of(
        NamedStream(names=tuple(tree["names"]), root=str(tmp_path), per_domain=2, order_seed=1992)
    )
    assert four.protocol == "class-incremental"
    assert [len(task.classes) for task in four.tasks] == [2, 2, 2, 2]
    assert set(four.tasks[0].classes + four.tasks[1].classes) == {0, 1, 2, 3}


def resolved(stream: Any) -> NamedStream:
    spec = load([{"method": "ncm", "stream": stream}]).experiment.resolved().stream
    assert isinstance(spec, NamedStream)
    return spec


def test_tasks_are_the_papers_unless_told_otherwise() -> None:
    assert resolved("cifar100").tasks == 10 and resolved("isic").tasks == 3
    assert resolved({"kind": "cifar100", "tasks": 20}).tasks == 20
    assert resolved({"kind": "named", "names": ["cifar100"]}).tasks == 10
    assert resolved({"kind": "cifar100", "increments": [50, 10]}).tasks is None
    assert resolved("xtail").tasks is None and resolved("x-tail").names == XTAIL


def test_the_papers_tasks_written_out_are_the_same_key() -> None:
    def key(spec: NamedStream) -> str:
        experiment = Experiment(method=NCM(), stream=spec).resolved()
        return RunIdentity(experiment, ("0" * 32,)).result.key

    plain = NamedStream(names=("cifar100",))
    assert key(plain) == key(NamedStream(names=("cifar100",), tasks=10, root="/elsewhere"))
    assert key(plain) != key(NamedStream(names=("cifar100",), tasks=20))
    assert "ncm-cifar100-seed0" in key(plain)


def test_a_name_that_is_none_suggests_its_neighbour() -> None:
    with pytest.raises(ConfigError, match="unknown stream 'cifar-1000'") as caught:
        load([{"method": "ncm", "stream": "cifar-1000"}])
    assert "did you mean 'cifar100'" in str(caught.value)
    with pytest.raises(ConfigError, match="no data set has this name"):
        load([{"method": "ncm", "stream": {"kind": "named", "names": ["cifar-1000"]}}])
