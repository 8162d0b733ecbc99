"""Methods that encode images themselves: they get pixels, and nobody else pays for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raycl.config.execution import Execution
from raycl.config.loading import load, parse_setting
from raycl.config.methods import parse_method
from raycl.config.streams import parse_stream
from raycl.engine.data import Decoder
from raycl.engine.run import RunResult, run
from raycl.errors import ConfigError, MethodError, StoppedError
from raycl.store.store import Store
from raycl.streams.source import Ints
from tests.embedding import made_images
from tests.engine.worlds import World, numbers, predictions_digests

SMALL = (
    "stream.tasks=2",
    "backbone.batch=4",
    "method.text.epochs=1",
    "method.text.per_class=12",
    "method.vision.epochs=2",
    "method.vision.batch=4",
)


def run_on(pets: Path, store: Path, method: str, *settings: str, **more: Any) -> RunResult:
    execution = {k: more.pop(k) for k in ("pool", "stop_after") if k in more}
    tree = {"method": parse_method(method), "stream": parse_stream(f"folder:{pets}"), **more}
    config = load([tree, *(parse_setting(text) for text in settings)])
    return run(config.experiment, Execution(store=str(store), **execution))


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of four classes, since an encoder has nothing to learn from one alone."""
    monkeypatch.setattr(made_images, "CLASSES", ("cat", "dog", "fish", "bird"))
    return made_images.save_folder(tmp_path / "pets")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each row of the image set was decoded for a method."""
    counts: Counter[int] = Counter()
    decode = Decoder.__call__

    def counting(self: Decoder, rows: Ints) -> Tensor:
        counts.update(int(row) for row in rows)
        return decode(self, rows)

    monkeypatch.setattr(Decoder, "__call__", counting)
    return counts


ENCODES = """
import torch
from raycl import Method, Spec


class Encodes(Method[Spec]):
    def vectors(self, samples):
        chunks = samples.pixels.chunks(4)
        return torch.cat([self.setting.encoder.encode_images(pixels) for pixels in chunks])

    def learn(self, task, context):
        assert len(task.test.rows) == 0

    def seen_scores(self, x):
        return x @ self.setting.text[list(self.seen)].T

    def union_scores(self, x):
        return x @ self.setting.text.T

    def state(self):
        return {}

    def restore(self, state):
        pass
"""


def test_pixels_become_the_streams_own_vectors(
    tmp_path: Path, pets: Path, decoded: Counter[int]
) -> None:
    (tmp_path / "encodes.py").write_text(ENCODES)
    plain = ENCODES.replace("def vectors", "def other")
    (tmp_path / "plain.py").write_text(plain.replace("Encodes", "Plain"))
    found = run_on(pets, tmp_path / "store", str(tmp_path / "encodes.py"), *SMALL[:2])
    # Each test image once after each of the two tasks, for both rankings together.
    tests = sum(task["test"] for task in found.values["tasks"])
    assert len(decoded) == tests and set(decoded.values()) == {2}
    decoded.clear()
    expected = run_on(pets, tmp_path / "store", str(tmp_path / "plain.py"), *SMALL[:2])
    assert not decoded, "who does not ask for pixels does not pay for them"
    for name in ("r_seen", "r_union"):
        assert found.values[name] == expected.values[name]
    assert "figures" not in found.values


def test_vectors_that_are_no_vectors_are_told(tmp_path: Path, pets: Path) -> None:
    (tmp_path / "wrong.py").write_text(ENCODES.replace("samples.pixels.chunks(4)", "[]"))
    with pytest.raises(MethodError, match=r"vectors"):
        run_on(pets, tmp_path / "store", str(tmp_path / "wrong.py"), *SMALL[:2])


@pytest.mark.parametrize("method", ["dmc", "dmc_ot"])
def test_a_stopped_run_on_images_ends_with_the_same_numbers(
    tmp_path: Path, pets: Path, method: str
) -> None:
    whole = run_on(pets, tmp_path / "whole", method, *SMALL)
    with pytest.raises(StoppedError):
        run_on(pets, tmp_path / "store", method, *SMALL, stop_after=1)
    again = run_on(pets, tmp_path / "store", method, *SMALL)
    assert numbers(again) == numbers(whole)
    assert predictions_digests(tmp_path / "store") == predictions_digests(tmp_path / "whole")
    figures = whole.values["figures"]
    assert [f["vision"] for f in figures] == ["lora", "lora"]
    assert figures[1]["log_bw2"] < 0 < figures[1]["moved"]
    assert figures[0]["mean_error_old"] is None and figures[1]["mean_error_old"] > 0


def test_statistics_are_part_of_the_state_wherever_they_lie(tmp_path: Path, pets: Path) -> None:
    whole = run_on(pets, tmp_path / "store", "dmc_ot", *SMALL)
    store = Store.open(str(tmp_path / "store"))
    kept = list(store.records("gaussian"))
    classes = len(whole.values["class_names"])
    assert len(kept) == classes
    assert whole.values["state_mib"] > classes * 128 * 129 / 2 * 4 / 2**20
    last = next(r for r in store.records("state") if r.described["task"] == 1)
    assert {record.key for record in kept} <= set(last.needs)


def test_statistics_that_are_lost_are_learnt_again(tmp_path: Path, pets: Path) -> None:
    whole = run_on(pets, tmp_path / "whole", "dmc_ot", *SMALL)
    with pytest.raises(StoppedError):
        run_on(pets, tmp_path / "store", "dmc_ot", *SMALL, stop_after=1)
    store = Store.open(str(tmp_path / "store"))
    lost = next(iter(store.records("gaussian")))
    store.discard(lost.key)
    again = run_on(pets, tmp_path / "store", "dmc_ot", *SMALL)
    assert again.computed["state"] == 2, "the first task too"
    assert store.record(lost.key) is not None
    assert numbers(again) == numbers(whole)


def test_a_probe_is_seen_through_the_moved_encoder(
    tmp_path: Path, pets: Path, decoded: Counter[int]
) -> None:
    other = parse_stream(f"folder:{made_images.save_folder(tmp_path / 'others')}")
    found = run_on(pets, tmp_path / "store", "dmc", *SMALL, probe=other)
    assert all(value is not None for value in found.values["probe"])
    bare = run_on(pets, tmp_path / "store", "dmc", *SMALL)
    assert found.values["r_union"] == bare.values["r_union"]


def test_given_vectors_take_the_adapter_behind_the_encoder_and_say_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    found = world.run("dmc")
    assert [f["vision"] for f in found.values["figures"]] == ["residual"] * 3
    with pytest.raises(ConfigError, match="needs images"):
        world.run("dmc", "method.vision.adapter=lora")


def test_a_kill_between_the_stages_loses_no_number(tmp_path: Path, pets: Path) -> None:
    """The prompts fail once, after the encoder moved and the statistics were stored."""
    whole = run_on(pets, tmp_path / "whole", "dmc_ot", *SMALL)
    from raycl.methods import dmc

    with pytest.MonkeyPatch.context() as patch:
        calls = []

        def dies(*asked: Any) -> None:
            calls.append(asked)
            raise OSError("the machine went away")

        patch.setattr(dmc.DMCMethod, "_train_text", dies)
        with pytest.raises(OSError, match="went away"):
            run_on(pets, tmp_path / "store", "dmc_ot", *SMALL)
    assert calls
    again = run_on(pets, tmp_path / "store", "dmc_ot", *SMALL)
    assert numbers(again) == numbers(whole)


def test_pixels_come_in_order_and_in_bounded_chunks() -> None:
    from raycl.streams.stream import Pixels, Samples, joined

    asked: list[list[int]] = []

    def decode(rows: Ints) -> Tensor:
        asked.append(rows.tolist())
        return torch.from_numpy(rows)[:, None, None, None].float().expand(-1, 3, 2, 2)

    parts = [
        Samples(
            torch.zeros(n, 4), torch.zeros(n), np.arange(n), Pixels(decode, first + np.arange(n))
        )
        for first, n in ((10, 3), (20, 2))
    ]
    both = joined(parts).pixels
    assert both is not None and both(np.array([4, 0]))[:, 0, 0, 0].tolist() == [21.0, 10.0]
    asked.clear()
    assert torch.cat(list(both.chunks(2)))[:, 0, 0, 0].tolist() == [10, 11, 12, 20, 21]
    assert asked == [[10, 11], [12, 20], [21]]
    bare = [Samples(p.x, p.y, p.rows) for p in parts]
    assert joined(bare).pixels is None
