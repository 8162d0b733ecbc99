"""The rules of a sweep: what runs next, what survives a death, what is told once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from raycl.errors import ConfigError
from raycl.search.conductor import ATTEMPTS, Conductor, Report
from raycl.search.ledger import Ledger, driven_ledger, entries, open_ledger
from raycl.search.records import Values
from raycl.search.standings import best_sample, failed_share, pareto, summary
from raycl.store.store import Store
from tests.search.made_sweeps import PARTS, Killed, by_rate, drive, made_space, values, whole

RUNGS = {"scheduler": {"kind": "task_rungs"}}


def events(ledger: Ledger) -> list[dict[str, Any]]:
    return ledger.store.journal(f"sweep/{ledger.entry.id}").read()


def test_a_sweep_runs_its_samples_and_names_the_best(tmp_path: Path) -> None:
    ledger = whole(tmp_path, made_space(seeds=[0, 1]))
    found = summary(ledger.records, "made", 0.0)
    assert (found["trials"], found["states"], found["task_steps"]) == (16, {"complete": 16}, 80)
    best = best_sample(ledger.records)
    assert best is not None
    rates = [s.params["method.align.lr"] for s in ledger.records.samples]
    nearest = min(
        rates, key=lambda lr: abs(by_rate({"method.align.lr": lr}, 5)["last_pooled"] - 85)
    )
    assert best.params["method.align.lr"] == nearest
    assert found["best"]["values"]["last_pooled"] == best.value("last_pooled")


@pytest.mark.parametrize("more", [{}, RUNGS], ids=["all", "rungs"])
def test_a_driver_that_dies_anywhere_ends_with_the_same_sweep(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    """One trial at a time: the same trials, the same values, whatever write was the last."""
    space = made_space(PARTS, sampler={"kind": "tpe", "startup": 3}, **more)
    undisturbed = values(whole(tmp_path / "whole", space))
    moments, deaths = random.Random(0), 0
    store = Store.open(str(tmp_path / "killed"))
    while True:
        with driven_ledger(store, space) as ledger:
            _die_after(ledger, moments.randrange(1, 12))
            try:
                drive(Conductor(ledger))
            except Killed:
                deaths += 1
                continue
            break
    assert deaths > 5
    assert values(open_ledger(store, "made")) == undisturbed


def test_with_four_at_a_time_none_is_lost_or_told_twice(tmp_path: Path) -> None:
    space, store, moments = (
        made_space(samples=12, **RUNGS),
        Store.open(str(tmp_path)),
        random.Random(1),
    )
    for _ in range(40):
        with driven_ledger(store, space) as ledger:
            _die_after(ledger, moments.randrange(2, 15))
            try:
                drive(Conductor(ledger, 4))
                break
            except Killed:
                continue
    ledger = open_ledger(store, "made")
    finished = [e["trial"] for e in events(ledger) if e["event"] == "finished"]
    assert len(finished) == len(set(finished)) == 12 == len(ledger.records.trials)
    reported = [(e["trial"], e["done"]) for e in events(ledger) if e["event"] == "reported"]
    assert len(reported) == len(set(reported))
    assert any(trial.state == "complete" for trial in ledger.records.trials)


def _die_after(ledger: Ledger, writes: int) -> None:
    """The driver is gone after so many events, before or after one was written."""
    append, left = ledger._journal.append, [writes]

    def dying(event: Any) -> None:
        left[0] -= 1
        if left[0] == 0 and writes % 2:
            raise Killed
        append(event)
        if left[0] == 0:
            raise Killed

    ledger._journal.append = dying  # type: ignore[method-assign]


def test_an_ended_sweep_is_answered_and_more_samples_continue_it(tmp_path: Path) -> None:
    first = values(whole(tmp_path, made_space(samples=4)))
    assert drive_again(tmp_path, samples=4) == []
    told = drive_again(tmp_path, samples=6)
    assert {step.split("-")[0] for step in told} == {"4", "5"}
    grown = values(open_ledger(Store.open(str(tmp_path)), "made"))
    assert grown[:4] == first
    assert grown == values(whole(tmp_path / "at once", made_space(samples=6)))


def drive_again(folder: Path, **more: Any) -> list[str]:
    with driven_ledger(Store.open(str(folder)), made_space(**more)) as ledger:
        return drive(Conductor(ledger))


def test_a_changed_space_is_refused_with_the_difference_or_begun_anew(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    whole(tmp_path, made_space(samples=2))
    other = made_space({"method.align.lr": {"loguniform": [1e-3, 1e-1]}}, samples=2)
    refused = pytest.raises(ConfigError, match=r"(?s)loguniform: was .*0\.0001.*is .*0\.001.*--new")
    with refused, driven_ledger(store, other):
        pass
    with driven_ledger(store, other, new=True) as ledger:
        assert ledger.entry.id == "made-2" and not ledger.records.samples
    assert [entry.id for entry in entries(store)] == ["made", "made-2"]
    assert open_ledger(store, "made").entry.id == "made"
    with pytest.raises(ConfigError, match="known: made"):
        open_ledger(store, "mode")


def test_a_space_of_another_version_stands_in_nobodys_way(tmp_path: Path) -> None:
    store, space = Store.open(str(tmp_path)), made_space(samples=1)
    old = {**space.model_dump(mode="json", by_alias=True), "forgotten": 1}
    store.journal("sweeps").append(
        {"event": "begun", "id": "made", "name": "made", "space": old, "at": 0.0}
    )
    whole(tmp_path, made_space(samples=1, name="other"))
    refused = pytest.raises(ConfigError, match=r"(?s)another space.*forgotten.*--new")
    with refused, driven_ledger(store, space):
        pass
    with driven_ledger(store, space, new=True) as ledger:
        assert ledger.entry.id == "made-2"


def test_more_tasks_let_finished_trials_go_on(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    ledger = whole(tmp_path, made_space(samples=3, tasks=2))
    assert {trial.done for trial in ledger.records.trials} == {2}
    with driven_ledger(store, made_space(samples=3, tasks=2)) as ledger:
        ledger.write("extended", tasks=4)
        told = drive(Conductor(ledger))
    assert [step.split(":")[1] for step in told] == ["3", "4"] * 3
    again = open_ledger(store, "made")
    assert {(t.done, t.state) for t in again.records.trials} == {(4, "complete")}


def test_failures_are_told_and_the_sweep_goes_on(tmp_path: Path) -> None:
    def worth(params: dict[str, Any], done: int) -> Values:
        found = by_rate(params, done)
        bad = params["method.align.lr"] > 0.01 and done == 2
        return {**found, "last_pooled": float("nan")} if bad else found

    ledger = whole(tmp_path, made_space(seeds=[0, 1]), worth)
    states = {trial.state for trial in ledger.records.trials}
    assert states == {"complete", "failed", "skipped"}
    assert 0 < failed_share(ledger.records) < 1
    why = next(t.why for t in ledger.records.trials if t.state == "failed")
    assert why == "last_pooled is nan after task 2"
    again = open_ledger(Store.open(str(tmp_path)), "made")
    assert [t.state for t in again.records.trials] == [t.state for t in ledger.records.trials]


def test_a_trial_whose_process_keeps_dying_fails_unless_it_moves_on(tmp_path: Path) -> None:
    with driven_ledger(Store.open(str(tmp_path)), made_space(samples=1)) as ledger:
        conductor = Conductor(ledger)
        for life in range(2 * ATTEMPTS):
            trial = conductor.next()
            assert trial is not None and trial.name == "0-0"
            if life == ATTEMPTS - 1:
                assert conductor.report(trial, Report(1, 5, by_rate({}, 1)))
            conductor.lose(trial, "killed")
            if trial.over:
                break
        assert trial.state == "failed" and life == 2 * ATTEMPTS - 2
        assert conductor.next() is None and conductor.over


def test_an_undefined_objective_fails_with_its_name(tmp_path: Path) -> None:
    space = made_space(samples=1, objectives=[{"metric": "transfer"}])
    ledger = whole(tmp_path, space)
    assert "transfer is undefined" in str(ledger.records.trials[0].why)


def test_values_that_do_not_go_together_fail_their_sample_only(tmp_path: Path) -> None:
    axes = {
        "method.prompt.kind": {"constant": "tokens"},
        "method.prompt.tokens": {"choice": [1, 0]},
        "method.prompt.mapped": {"choice": [True, False]},
    }
    ledger = whole(tmp_path, made_space(axes, samples=None))
    states = [trial.state for trial in ledger.records.trials]
    assert sorted(states) == ["complete", "complete", "complete", "failed"]
    failed = next(t for t in ledger.records.trials if t.state == "failed")
    assert "nothing to train" in str(failed.why)


def test_constraints_and_several_objectives(tmp_path: Path) -> None:
    space = made_space(
        samples=12,
        objectives=[
            {"metric": "last_pooled"},
            {"metric": "state_mib"},
            {"metric": "seconds", "constraint": 9.0},
        ],
    )
    ledger = whole(tmp_path, space)
    best = best_sample(ledger.records)
    # Here the best by one objective is the best by the other too.
    assert [sample.number for sample in pareto(ledger.records)] == [best and best.number]
    tight = made_space(samples=2, name="tight", objectives=[
        {"metric": "last_pooled"}, {"metric": "seconds", "constraint": 1.0}])  # fmt: skip
    assert best_sample(whole(tmp_path, tight).records) is None


def test_a_journal_is_read_in_no_time(tmp_path: Path) -> None:
    import time

    whole(tmp_path, made_space(samples=80, sampler={"kind": "random"}))
    began = time.monotonic()
    ledger = open_ledger(Store.open(str(tmp_path)), "made")
    assert len(ledger.records.trials) == 80 and time.monotonic() - began < 1.0
