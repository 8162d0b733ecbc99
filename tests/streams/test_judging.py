"""A stream that is judged by its validation split: nothing of the test, nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycl.config.experiment import Experiment
from raycl.config.methods import NCM
from raycl.config.streams import EmbeddingsStream, Validation
from raycl.engine.identity import RunIdentity
from raycl.streams.stream import Stream, build, read_source
from tests.streams.made_sets import arrays, save_npz


def experiment(path: Path, **validation: object) -> Experiment:
    spec = EmbeddingsStream(paths=(str(path),), tasks=2)
    return Experiment(method=NCM(), stream=spec, validation=Validation.model_validate(validation))


def stream(path: Path, **validation: object) -> Stream:
    full = experiment(path, **validation).resolved()
    assert isinstance(full.stream, EmbeddingsStream)
    return build(full, read_source(full.stream))


@pytest.mark.parametrize("own", [0, 3])
def test_a_judged_task_tests_on_what_is_held_out_of_training(tmp_path: Path, own: int) -> None:
    path = save_npz(tmp_path / "set.npz", arrays(train=20, **({"val": own} if own else {})))
    plain, judged = stream(path, fraction=0.2), stream(path, fraction=0.2, judge="held_out")
    for before, after in zip(plain.tasks, judged.tasks, strict=True):
        assert after.test.rows.tolist() == before.held_out.rows.tolist()
        learnt, chosen = set(after.fit.rows), set(after.held_out.rows)
        assert set(after.train.rows) == set(before.fit.rows) == learnt | chosen
        assert chosen and not learnt & chosen
        assert not (learnt | chosen) & set(after.test.rows)
        assert set(after.classes) == set(after.held_out.y.tolist()) == set(after.test.y.tolist())


def test_what_is_judged_is_in_every_key(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "set.npz", arrays())
    plain, judged = (RunIdentity.of(experiment(path, judge=j)) for j in ("test", "held_out"))
    assert RunIdentity.of(experiment(path)).zero_shot.key == plain.zero_shot.key
    assert plain.zero_shot.key != judged.zero_shot.key
    assert plain.state(0).key != judged.state(0).key
    assert plain.setting != judged.setting
