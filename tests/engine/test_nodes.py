"""What nodes see of a store: one that is another folder elsewhere is found out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raycl.compute import ray_nodes
from raycl.compute.ray_nodes import NodeAnswer, on_each_node
from raycl.config.backbones import Backbone
from raycl.config.captions import BLIPCaptioner, Captioning
from raycl.config.clts import CLTS
from raycl.config.experiment import Experiment
from raycl.config.streams import DigitsStream, EmbeddingsStream, NamedStream
from raycl.config.synthesis import Synthesis
from raycl.engine.nodes import Question, as_rows, check_from_others, from_rows, look
from raycl.engine.nodes import look_from_all as look_around
from raycl.engine.paths import read_by, read_for, with_absolute_paths
from raycl.errors import ClusterError, StoreError
from tests.streams.made_sources import make_source


def asked(store: Path, mounts: tuple[str, ...] = ()) -> dict[str, Any]:
    return look(Question(str(store), "probes/a", "word", mounts))


def test_a_node_that_sees_the_same_store_has_no_problem(tmp_path: Path) -> None:
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "a").write_text("word")
    assert asked(tmp_path, (str(tmp_path),))["problems"] == []
    assert [f.name for f in (tmp_path / "probes").iterdir()] == ["a"]
    assert asked(tmp_path, ("/no/such/mount",))["problems"] == ["has no /no/such/mount"]
    (tmp_path / "set.npz").touch()
    assert asked(tmp_path, (str(tmp_path / "set.npz"),))["problems"] == []


def test_what_a_command_reads_is_known(tmp_path: Path) -> None:
    stream = EmbeddingsStream(paths=("/data/a.npz", "/data/b.npz"))
    weights = Backbone(name="ViT-B-32:/data/w.safetensors")
    assert read_by(stream, stream, weights) == (
        "/data/a.npz",
        "/data/b.npz",
        "/data/w.safetensors",
    )
    assert read_by(DigitsStream(), None, Backbone(name="ViT-B-32:openai")) == ()
    make_source(tmp_path, "eurosat")
    (folder,) = read_by(NamedStream(names=("eurosat",), root=str(tmp_path)))
    assert Path(folder).is_relative_to(tmp_path) and any(Path(folder).rglob("*.jpg"))


def test_the_folders_of_a_methods_models_are_read_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sd", "blip"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    captions = Captioning(captioner=BLIPCaptioner(model="blip"))
    method = CLTS(captions=captions, synthesis=Synthesis(model="sd"))
    told = with_absolute_paths(Experiment(stream=DigitsStream(), method=method))
    assert read_for(told) == (str(tmp_path / "blip"), str(tmp_path / "sd"))
    hub = CLTS(captions=captions, synthesis=Synthesis(model="some/model"))
    told = with_absolute_paths(Experiment(stream=DigitsStream(), method=hub))
    assert read_for(told) == (str(tmp_path / "blip"),)


def test_a_node_with_a_folder_of_its_own_is_found_out(tmp_path: Path) -> None:
    assert "sees another store" in asked(tmp_path / "other")["problems"][0]
    (tmp_path / "file").write_text("")
    assert "cannot use the store" in asked(tmp_path / "file")["problems"][0]


def nodes_that(answer: Callable[[Any], NodeAnswer]) -> Callable[..., list[NodeAnswer]]:
    return lambda function, question, **options: [answer(function(question))]


def test_what_was_written_to_find_out_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = nodes_that(lambda value: NodeAnswer("n1", 4, 0, False, value))
    monkeypatch.setattr(ray_nodes, "on_each_node", good)
    (report,) = look_around(str(tmp_path))
    assert report.problems == [] and report.cpus == 4
    assert not [f for f in tmp_path.rglob("*") if f.is_file()]
    assert from_rows(as_rows([report])) == [report]
    with pytest.raises(ClusterError, match="another form"):
        from_rows([{"nod": "x"}])


@pytest.mark.parametrize("answered", [True, False])
def test_a_run_is_refused_for_what_a_node_says_and_not_for_one_that_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    def answer(value: dict[str, Any]) -> NodeAnswer:
        value = {**value, "problems": ["sees another store at x"]}
        return NodeAnswer("n2", 4, 0, False, value, None if answered else "died")

    monkeypatch.setattr(ray_nodes, "on_each_node", nodes_that(answer))
    if not answered:
        check_from_others(str(tmp_path))
        return
    with pytest.raises(StoreError, match="cannot work with this store") as caught:
        check_from_others(str(tmp_path))
    assert "n2 sees another store" in str(caught.value) and "mounts" in str(caught.value)


@pytest.mark.ray
def test_every_node_is_asked_and_its_error_is_told(ray_session: object) -> None:
    (answer,) = on_each_node(len, "four")
    assert answer.value == 4 and answer.cpus == 2 and answer.error is None
    (failed,) = on_each_node(len, 4)
    assert failed.error is not None and "has no len()" in failed.error
    assert on_each_node(len, "x", others_only=True) == []
