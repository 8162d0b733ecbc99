"""Samplers: a function of the records alone, on the domains that the space says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from raycl.search.records import Sample
from raycl.search.sampling import frozen, study_of, suggest
from tests.search.made_sweeps import LR, PARTS, by_rate, made_space, values, whole

KINDS: dict[str, dict[str, Any]] = {
    "random": {"kind": "random"},
    "tpe": {"kind": "tpe", "startup": 4},
    "nsga2": {"kind": "nsga2", "population": 4},
}
TWO = {**LR, "method.per_class": {"lograndint": [16, 512]}}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_records_give_the_same_sample(tmp_path: Path, kind: str) -> None:
    space = made_space(PARTS, sampler=KINDS[kind], samples=12)
    ledger = whole(tmp_path / "a", space)
    again = whole(tmp_path / "b", space)
    assert values(ledger) == values(again)
    assert suggest(space, ledger.records.samples) == suggest(space, again.records.samples)
    for sample in ledger.records.samples:
        assert all(space.axes[path].has(value) for path, value in sample.params.items())
        hidden = "method.generator.hidden" in sample.params
        assert hidden == (sample.params["method.generator.kind"] == "vae")
    rates = {sample.params["method.align.lr"] for sample in ledger.records.samples}
    assert len(rates) > 5 and (kind == "nsga2" or len(rates) == 12)
    other = space.model_copy(update={"sampler_seed": 1})
    assert values(whole(tmp_path / "c", other)) != values(ledger)


@pytest.mark.parametrize("kind", ["tpe", "cmaes"])
def test_a_sampler_that_learns_beats_one_that_does_not(tmp_path: Path, kind: str) -> None:
    found = {}
    for name in (kind, "random"):
        space = made_space(TWO, sampler={"kind": name}, samples=40)
        records = whole(tmp_path / name, space).records
        off = [abs(math.log10(s.params["method.align.lr"]) + 2) for s in records.samples[20:]]
        found[name] = sorted(off)[10]
    assert found[kind] < 0.6 * found["random"]
    assert all(16 <= s.params["method.per_class"] <= 512 for s in records.samples)


def test_a_grid_goes_through_every_choice_once(tmp_path: Path) -> None:
    axes = {
        "method.generator": {"choice": [{"kind": "vae", "hidden": 8}, {"kind": "gmm"}]},
        "method.per_class": {"choice": [16, 32, 64]},
    }
    ledger = whole(tmp_path, made_space(axes, samples=None))
    assert len(ledger.records.samples) == 6
    assert len({str(sample.params) for sample in ledger.records.samples}) == 6


def test_choices_of_any_type_come_back_as_they_were(tmp_path: Path) -> None:
    axes = {
        "method.generator": {"choice": [{"kind": "vae", "hidden": 8}, {"kind": "gmm"}]},
        "method.align.lr": {"choice": [None, 0.1, 1]},
    }
    space = made_space(axes, sampler={"kind": "tpe", "startup": 2}, samples=10)
    ledger = whole(tmp_path, space)
    seen = [sample.params["method.align.lr"] for sample in ledger.records.samples]
    assert {type(value) for value in seen} <= {type(None), float, int}
    assert all(isinstance(s.params["method.generator"], dict) for s in ledger.records.samples)


def test_samples_are_told_as_what_they_are(tmp_path: Path) -> None:
    space = made_space(scheduler={"kind": "task_rungs"}, samples=8)
    records = whole(tmp_path, space).records
    told = {frozen(space, sample).state.name for sample in records.samples}
    assert told == {"COMPLETE", "PRUNED"}
    loser = next(sample for sample in records.samples if sample.state == "pruned")
    pruned = frozen(space, loser)
    assert pruned.values is None
    assert set(pruned.intermediate_values) == set(loser.trials[0].reports)
    under_way = Sample(8, {"method.align.lr": 0.01}, [], {})
    assert frozen(space, under_way).state.name == "RUNNING"
    study = study_of(space, [*records.samples, under_way])
    assert len(study.trials) == 9 and study.best_value > 70


def test_constraints_are_told(tmp_path: Path) -> None:
    space = made_space(
        objectives=[{"metric": "last_pooled"}, {"metric": "state_mib", "constraint": 2.0}],
        sampler={"kind": "tpe", "startup": 3},
    )
    records = whole(tmp_path, space, by_rate).records
    for sample in records.samples:
        excess = (sample.value("state_mib") or 0) - 2.0
        assert frozen(space, sample).constraints == pytest.approx({"state_mib": excess})
