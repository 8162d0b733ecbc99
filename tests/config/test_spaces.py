"""What a space's file may say, and how one that cannot be meant is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raycl import shipped
from raycl.config.grid import Grid
from raycl.config.loading import check, read_file
from raycl.config.methods import BUILT_IN
from raycl.config.space import METRICS, Objective, Space, TaskRungs
from raycl.config.space_files import (
    check_space,
    differences,
    experiment_of,
    meaning,
    schema,
    space_of,
    tree_of,
)
from raycl.errors import ConfigError
from raycl.search.shipped_spaces import find_space

CGIL = {"method": {"kind": "cgil"}, "stream": {"kind": "digits", "tasks": 5}}
KIND = {"choice": ["vae", "gaussian"]}
WHEN_VAE = {"method.generator.kind": "vae"}


def space(axes: dict[str, Any], **more: Any) -> Space:
    found = space_of({"base": CGIL, "axes": axes, **more}, "mine")
    check_space(found)
    return found


def test_a_sample_becomes_the_experiment_that_it_says() -> None:
    mine = space(
        {
            "method.generator.kind": KIND,
            "method.generator.hidden": {"int": [64, 512], "when": WHEN_VAE},
            "method.align.lr": {"loguniform": [1e-4, 1e-1]},
            "method.per_class": 32,
        }
    )
    params = {
        "method.generator.kind": "vae",
        "method.generator.hidden": 96,
        "method.align.lr": 0.01,
    }
    found = experiment_of(mine, params, 7).model_dump()
    assert found["method"]["generator"]["hidden"] == 96
    assert (found["method"]["align"]["lr"], found["method"]["per_class"]) == (0.01, 32)
    assert (found["seed"], found["validation"]["judge"]) == (7, "held_out")
    assert experiment_of(mine, params, 7, on_test=True).validation.judge == "test"
    other = {"method.generator.kind": "gaussian", "method.align.lr": 0.01}
    assert experiment_of(mine, other, 0).model_dump()["method"]["generator"]["kind"] == "gaussian"


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"method.align.lrr": {"uniform": [0.1, 1]}}, ("method.align.lrr", "did you mean 'lr'")),
        ({"method.align.lr": {"unifrm": [0.1, 1]}}, ("unifrm", "did you mean 'uniform'")),
        ({"method.align.lr": {}}, ("one of uniform",)),
        ({"method.align.lr": {"uniform": [0, 1], "choice": [1]}}, ("one of uniform",)),
        ({"method.align.lr": {"uniform": [1, 0.1]}}, ("begins below its end",)),
        ({"method.align.lr": {"uniform": [-1, 1]}}, ("-1.0", "greater than 0")),
        ({"method.align.lr": {"loguniform": [0, 1]}}, ("above zero",)),
        ({"method.align.lr": {"uniform": [0.1, float("nan")]}}, ("finite",)),
        ({"method.align.epochs": {"uniform": [1, 100]}}, ("integer",)),
        ({"method.generator.kind": {"choice": ["vae", "vea"]}}, ("'vea'", "did you mean 'vae'")),
        ({"method.generator.kind": {"choice": []}}, ("nothing to choose",)),
        ({"method.generator.kind": {"choice": ["vae", "vae"]}}, ("given twice",)),
        ({"method.generator.hidden": {"int": [8, 9], "when": WHEN_VAE}}, ("no axis above it",)),
        (
            {"method.generator.kind": KIND, "method.align.lr": {
                "uniform": [0.1, 1], "when": {"method.generator.kind": "vea"}}},
            ("never be met",),
        ),
        ({"seed": {"int": [0, 9]}}, ("`seeds`",)),
        ({"execution.workers": 2}, ("--workers",)),
        ({"method..lr": 2}, ("dotted path",)),
        ({"method.align.lr": 0.1, "method.align": {"constant": {"lr": 1}}}, ("both are axes",)),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_words(axes: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as refused:
        space(axes)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"objectives": [{"metric": "last_poled"}]}, "did you mean 'last_pooled'"),
        ({"objectives": [{"metric": "seconds", "constraint": 1.0}]}, "without a constraint"),
        ({"objectives": []}, "at least 1"),
        ({"seeds": [1, 1]}, "given twice"),
        ({"sampler": {"kind": "grid"}}, "a grid needs choices"),
        ({"sampler": {"kind": "tpee"}}, "did you mean 'tpe'"),
        ({"sampler": {"kind": "cmaes"}, "objectives": [
            {"metric": "last_pooled"}, {"metric": "state_mib"}]}, "one objective"),
        ({"scheduler": {"kind": "task_rungs", "rungs": [2, 1]}}, "that rise"),
        ({"scheduler": {"kind": "task_rungs", "rungs": [5]}, "tasks": 5}, "after the last task"),
        ({"sampels": 3}, "did you mean 'samples'"),
    ],
)  # fmt: skip
def test_a_budget_that_cannot_be_meant_is_refused(more: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        space({"method.align.lr": {"uniform": [0.1, 1]}}, **more)


def test_a_grid_that_nobody_finishes_is_refused() -> None:
    axes = {f"stream.{name}": {"choice": [*range(1, 60)]} for name in ("tasks", "shots", "seed_")}
    with pytest.raises(ConfigError, match="never finished"):
        space(axes)


def test_a_grid_with_a_method_twice_is_refused_in_words() -> None:
    grid = {"stream": {"kind": "digits"}, "methods": [{"kind": "ncm"}] * 2}
    with pytest.raises(ConfigError, match="given twice"):
        space_of(grid, "grid")


def test_a_condition_leaves_its_axis_out_of_the_grid() -> None:
    mine = space(
        {
            "method.generator.kind": KIND,
            "method.generator.hidden": {"choice": [8, 16], "when": WHEN_VAE},
        }
    )
    assert len(list(mine.grid())) == 3 == mine.wanted_samples
    assert {"method.generator.kind": "gaussian"} in list(mine.grid())


def test_a_recipe_is_judged_by_the_test_and_a_search_is_not() -> None:
    recipe, search = space({}), space({"method.align.lr": {"uniform": [0.1, 1]}})
    assert recipe.on_test and recipe.wanted_samples == 1
    assert not search.on_test


def test_a_grid_of_methods_is_a_space() -> None:
    grid = find_space("demo")
    assert grid.on_test and list(grid.searched) == ["method"]
    tree = tree_of(grid, next(grid.grid()))
    assert tree["method"]["kind"] and tree["stream"]["kind"] == "digits"


def test_a_grid_may_have_many_streams() -> None:
    streams = [{"kind": "digits", "tasks": 5}, {"kind": "glyphs"}]
    grid = {"methods": [{"kind": "ncm"}, {"kind": "slda"}], "seeds": [3, 4]}
    many = space_of({**grid, "streams": streams}, "x")
    check_space(many)
    found = [experiment_of(many, params, seed) for params in many.grid() for seed in many.seeds]
    assert found == list(check(Grid, {**grid, "streams": streams}).experiments())
    assert len(found) == 8 and many.on_test
    one = space_of({**grid, "stream": streams[0]}, "x")
    assert list(one.searched) == ["method"], "an axis that was always there enters the meaning"
    for wrong in ({}, {"streams": []}, {"stream": streams[0], "streams": streams}):
        with pytest.raises(ConfigError, match="either `stream` or a list of `streams`"):
            space_of({**grid, **wrong}, "x")


def test_all_shipped_spaces_hold() -> None:
    names = shipped.names("search_spaces")
    assert len(names) > 20
    for name in names:
        assert find_space(name).name == name


def test_every_method_has_a_space_of_its_own() -> None:
    top = shipped.folder("search_spaces")
    bases = [find_space(file.stem).base for file in top.glob("*.yaml")]
    searched = {base["method"]["kind"] for base in bases if "method" in base}
    assert searched == {kind.model_fields["kind"].default for kind in BUILT_IN}


def test_the_schema_beside_the_spaces_is_the_one_of_the_code() -> None:
    stored = read_file(shipped.folder("search_spaces") / "space.schema.json")
    assert stored == json.loads(json.dumps(schema())), "raycl spaces schema, again"


def test_what_changed_in_a_space_is_told_and_its_budget_is_free() -> None:
    lr = {"method.align.lr": {"uniform": [0.1, 1]}}
    old, new = space(lr), space({"method.align.lr": {"uniform": [0.1, 2]}}, seeds=[0, 1])
    told = list(differences(meaning(old), meaning(new)))
    assert any("uniform" in line and "2.0" in line for line in told) and len(told) == 2
    assert meaning(old) == meaning(space(lr, samples=99, concurrent=3, about="x", tasks=2))


def test_rungs_come_early_but_after_two_tasks_unless_they_are_given() -> None:
    found = {tasks: TaskRungs().at(tasks) for tasks in (1, 2, 3, 5, 10, 20)}
    assert found == {1: (), 2: (1,), 3: (2,), 5: (2,), 10: (2, 3), 20: (2, 3, 5)}
    assert all(rung < tasks for tasks in range(1, 200) for rung in TaskRungs().at(tasks))
    assert TaskRungs(rungs=(1, 4, 9)).at(5) == (1, 4)


def test_metrics_of_objectives_are_those_of_a_result() -> None:
    import numpy as np

    from raycl.metrics.evaluation import evaluate
    from raycl.metrics.predictions import StagePredictions, rank

    one, scores = np.zeros(1, np.int64), rank(np.ones((1, 1), np.float32), np.zeros(1, np.int64))
    stage = StagePredictions.of(0, sample=one, task=one, label=one, seen=scores, union=scores)
    scalar = {n for n in evaluate([stage], [[0]], scores_unseen=True).values if "stage_" not in n}
    assert scalar == set(METRICS) - {"state_mib", "seconds", "trainable_parameters"}
    assert not Objective(metric="forgetting").maximises


def test_commands_answer(tmp_path: Path) -> None:
    from raycl.cli.spaces import spaces

    bad = tmp_path / "bad.yaml"
    bad.write_text("base: {method: {kind: ncm}, stream: {kind: digits}}\naxes: {method.knd: 1}\n")
    ask = CliRunner().invoke
    assert "rivals" in ask(spaces, ["list"]).output
    assert json.loads(ask(spaces, ["show", "rivals", "--json"]).output)["name"] == "rivals"
    assert "FAIL" in ask(spaces, ["check", "rivals", str(bad)]).output
    refused = ask(spaces, ["check", str(bad)])
    assert isinstance(refused.exception, ConfigError)
    assert "did you mean 'kind'" in str(refused.exception)
