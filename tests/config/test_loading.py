"""What a user writes: overrides merge, mistakes are named with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycl import shipped
from raycl.config.clusters import execution_part
from raycl.config.grid import Grid
from raycl.config.loading import Config, check, load, merge, parse_setting, read_file
from raycl.config.methods import parse_method
from raycl.config.streams import parse_probe, parse_stream
from raycl.errors import ConfigError

BASE = {"method": {"kind": "finetune"}, "stream": {"kind": "digits"}}


def with_settings(*settings: str) -> Config:
    return load([BASE, *(parse_setting(text) for text in settings)])


def test_settings_reach_nested_fields_and_later_ones_win() -> None:
    config = with_settings("method.align.lr=1e-2", "stream.tasks=5", "stream.tasks=2")
    assert config.experiment.stream.tasks == 2
    assert config.experiment.method.align.lr == 0.01


def test_a_changed_kind_keeps_what_both_kinds_have() -> None:
    slda = {"method": {"kind": "slda", "shrinkage": 0.3, "unseen": "gate"}}
    assert merge([slda, {"method": {"kind": "ncm"}}]) == {
        "method": {"kind": "ncm", "unseen": "gate"}
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("010", 10),
        ("1:30", "1:30"),
        ('"1e3"', "1e3"),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ("0x10", "0x10"),
        ("abc", "abc"),
        ("true", True),
    ],
)
def test_values_are_read_as_they_are_meant(text: str, value: object) -> None:
    found = parse_setting(f"a={text}")["a"]
    assert found == value and type(found) is type(value)


def test_a_file_may_name_a_method_as_the_command_line_does() -> None:
    config = load([{"method": "slda", "stream": "digits"}])
    assert config.experiment.method.kind == "slda"


def test_labels_tell_apart_what_was_set_differently() -> None:
    labels = {
        with_settings(*settings).experiment.method_label
        for settings in (
            (),
            ("method.align.lr=0.5",),
            ("validation.refit=false",),
            ("backbone.logit_scale=50",),
        )
    }
    assert labels == {
        "finetune",
        "finetune(align.lr=0.5)",
        "finetune(validation.refit=False)",
        "finetune(backbone.logit_scale=50)",
    }
    assert with_settings("seed=7", "validation.seed=9").experiment.method_label == "finetune"


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("method.align.lrr=3", ["'method.align.lrr'", "did you mean 'lr'"]),
        ("method.kind=slad", ["unknown method 'slad'", "did you mean 'slda'"]),
        ("stream.kind=digit", ["unknown stream 'digit'", "did you mean 'digits'"]),
        ("stream.kind=glyph", ["unknown stream 'glyph'", "did you mean 'glyphs'"]),
        ("stream.kind=folder", ["stream.paths is missing"]),
        ("stream={kind: folder, paths: [a], corrupt: ignore}", ["stream.corrupt", "'skip'"]),
        ("stream={kind: folder, paths: [a], test_fraction: 1}", ["test_fraction", "less than 1"]),
        ("stream={kind: folder, paths: []}", ["stream.paths", "at least 1"]),
        ("stream.taks=3", ["'stream.taks'", "did you mean 'tasks'"]),
        ("sed=3", ["'sed'", "did you mean 'seed'"]),
        ("execution.wokers=2", ["'execution.wokers'", "did you mean 'workers'"]),
        ("stream.tasks=zwei", ["stream.tasks", "valid integer", "'zwei'"]),
        ("stream.tasks=0", ["stream.tasks", "greater than or equal to 1", "got 0"]),
        ("method.loss=foo", ["method.loss", "'seen' or 'local'", "'foo'"]),
        ("method.align=3", ["method.align", "got 3"]),
        ("validation.fraction=nan", ["validation.fraction", "nan"]),
        ("tasks", ["path.to.option=value", "got tasks"]),
        ("a..b=1", ["path.to.option=value"]),
        ("stream.tasks=[", ["not valid YAML"]),
        ("stream.tasks=yes", ["tasks is not a question of yes or no"]),
        ("backbone.logit_scale=.inf", ["backbone.logit_scale", "number", ".inf"]),
        ("backbone.logit_scale=1e400", ["backbone.logit_scale", "finite"]),
        ("exection.store=x", ["did you mean 'execution'"]),
    ],
)
def test_a_mistake_is_named_with_what_to_do(setting: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        with_settings(setting)
    message = str(caught.value)
    assert [part for part in parts if part not in message] == []
    assert "→" in message or "got" in message


def test_a_missing_part_is_named() -> None:
    with pytest.raises(ConfigError, match="no stream is named"):
        load([{"method": {"kind": "ncm"}}])
    with pytest.raises(ConfigError, match="no method is named"):
        load([{"stream": {"kind": "digits"}}])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- a\n- b\n", "mapping at its top"),
        ("a: [1,\n", "not valid YAML"),
        ("stream: digits\nseed: 1\nstream: digits\n", "'stream' is given twice"),
        ("a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=part):
        read_file(file)


def test_names_and_paths_on_the_command_line(tmp_path: Path) -> None:
    assert parse_method("slda") == {"kind": "slda"}
    assert parse_method("./mine.py") == {"kind": "python", "target": "./mine.py"}
    assert parse_method("python:mod:Class") == {"kind": "python", "target": "mod:Class"}
    assert parse_stream("digits") == {"kind": "digits"}
    assert parse_stream("embeddings:a.npz+b.npz")["paths"] == ["a.npz", "b.npz"]
    assert parse_stream("folder:a+b") == {"kind": "folder", "paths": ["a", "b"]}
    assert parse_stream("tiny-xtail") == {"kind": "tiny-xtail"}
    plus = tmp_path / "a+b.npz"
    plus.touch()
    assert parse_stream(f"embeddings:{plus}")["paths"] == [str(plus)]


@pytest.mark.parametrize("text", ["folder:", "embeddings:", "folder:+"])
def test_a_path_that_was_forgotten_is_not_the_current_folder(text: str) -> None:
    with pytest.raises(ConfigError, match=r"no path follows"):
        parse_stream(text)


def test_a_probe_is_no_stream_to_learn() -> None:
    assert parse_probe("glyphs") == parse_probe("probe:glyphs") == {"kind": "glyphs"}
    assert parse_probe("probe:folder:a")["paths"] == ["a"]
    with pytest.raises(ConfigError, match="never trained") as caught:
        parse_stream("probe:folder:photos")
    assert "--probe folder:photos" in str(caught.value)


def test_every_shipped_file_is_valid() -> None:
    grids = [tree for tree in map(read_file, shipped.files("search_spaces").values())
             if "methods" in tree]  # fmt: skip
    assert len(grids) > 1
    for grid in grids:
        assert list(check(Grid, grid).experiments()), grid
    for name in shipped.names("clusters"):
        tree = read_file(shipped.find(name, "clusters"))
        assert load([BASE, execution_part(tree)]).execution


def test_an_unknown_shipped_name_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="demo"):
        shipped.find("dmo", "search_spaces")
