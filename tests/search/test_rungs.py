"""TaskRungs: only the comparable are compared, nobody waits for a quorum, losers cost little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raycl.search.records import Trial, Values
from raycl.search.rungs import dominates, front_numbers, goes_on, ranked, to_promote
from tests.search.made_sweeps import by_rate, made_space, values, whole

RUNGS = {"scheduler": {"kind": "task_rungs", "rungs": [1, 2]}}
SPACE = made_space(**RUNGS)


def trial(sample: int, value: float | None, *, group: str = "a", done: int = 1) -> Trial:
    reports: dict[int, Values] = {d: {"last_pooled": value} for d in range(1, done + 1)}
    return Trial(sample, 0, 0, group, "paused", reports, tasks=5)


def test_the_best_half_goes_on_and_late_losers_let_an_early_winner_go() -> None:
    first, second = trial(0, 50.0), trial(1, 40.0)
    assert not goes_on(SPACE, [first], first, 1), "one alone is not the best half of anything"
    assert to_promote(SPACE, [first, second]) is first
    assert not goes_on(SPACE, [first, second], second, 1)


def test_other_class_orders_are_no_peers() -> None:
    mine = [trial(0, 50.0), trial(1, 40.0)]
    others = [trial(n, 90.0, group="b") for n in range(2, 9)]
    assert goes_on(SPACE, [*mine, *others], mine[0], 1)
    assert not goes_on(SPACE, [mine[0], *others], mine[0], 1)


def test_what_is_undefined_prunes_nobody_and_is_no_peer() -> None:
    unknown, known = trial(0, None), trial(1, 10.0)
    assert goes_on(SPACE, [unknown, known], unknown, 1)
    assert not goes_on(SPACE, [unknown, known], known, 1)


def test_fronts_and_what_breaks_a_constraint() -> None:
    assert front_numbers([(1, 1), (2, 0), (0, 2), (0, 0), (0, 0)]) == [0, 0, 0, 1, 1]
    assert dominates((1, 1), (1, 0)) and not dominates((1, 1), (1, 1))
    space = made_space(
        objectives=[{"metric": "last_pooled"}, {"metric": "state_mib", "constraint": 2.0}], **RUNGS
    )
    heavy, light = trial(0, 90.0), trial(1, 10.0)
    heavy.reports[1]["state_mib"], light.reports[1]["state_mib"] = 3.0, 1.0
    assert ranked(space, [heavy, light], 1) == [light, heavy]


def test_a_tie_is_broken_by_the_earlier_tasks_and_then_by_the_younger() -> None:
    """Forty held-out samples know no more than forty-one values."""
    space = made_space(scheduler={"kind": "task_rungs", "rungs": [2]})
    worse, better, late = (trial(n, 50.0, done=2) for n in range(3))
    worse.reports[1]["last_pooled"], late.reports[1]["last_pooled"] = 40.0, None
    late.reports[2]["last_pooled"] = 49.0
    assert ranked(space, [late, worse, better], 2) == [better, worse, late]
    worse.reports[1]["last_pooled"] = 50.0
    assert ranked(space, [better, worse], 2) == [better, worse], "the sampler knew more by then"
    least = made_space(objectives=[{"metric": "forgetting"}], **RUNGS)
    one, other = trial(0, None, done=2), trial(1, None, done=2)
    for reported, first in ((one, 3.0), (other, 1.0)):
        reported.reports.update({1: {"forgetting": first}, 2: {"forgetting": 2.0}})
    assert ranked(least, [one, other], 2) == [other, one]


def test_several_objectives_race_by_their_fronts(tmp_path: Path) -> None:
    def worth(params: dict[str, Any], done: int) -> Values:
        found = by_rate(params, done)
        return {**found, "state_mib": params["method.align.lr"]}

    goals = [{"metric": "last_pooled"}, {"metric": "state_mib"}]
    space = made_space(objectives=goals, samples=16, sampler={"kind": "nsga2", "population": 4},
                       **RUNGS)  # fmt: skip
    ledger = whole(tmp_path, space, worth)
    states = [t.state for t in ledger.records.trials]
    assert states.count("complete") >= 2 and states.count("pruned") >= 6


def test_a_race_costs_less_and_keeps_the_best(tmp_path: Path) -> None:
    space = made_space(samples=16, sampler={"kind": "random"})
    every = whole(tmp_path / "all", space)
    raced = whole(tmp_path / "raced", space.model_copy(update={"scheduler": SPACE.scheduler}))
    steps = [sum(len(t.reports) for t in ledger.records.trials) for ledger in (every, raced)]
    assert steps[0] == 80 and steps[1] <= 50
    best = [max(t.last["last_pooled"] or 0 for t in ledger.records.trials if t.state == "complete")
            for ledger in (every, raced)]  # fmt: skip
    assert best[0] == best[1]


def test_the_other_seeds_measure_only_what_won(tmp_path: Path) -> None:
    ledger = whole(tmp_path, made_space(samples=8, seeds=[0, 1, 2], **RUNGS))
    for sample in ledger.records.samples:
        states = [trial.state for trial in sample.trials]
        assert states in (["complete"] * 3, ["pruned", "skipped", "skipped"])
    assert sum(sample.state == "complete" for sample in ledger.records.samples) >= 1


def test_a_single_sample_comes_home(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        ledger = whole(tmp_path / str(n), made_space(samples=n, **RUNGS))
        assert any(trial.state == "complete" for trial in ledger.records.trials)


def test_five_hundred_are_ranked_in_no_time() -> None:
    import time

    many = [trial(n, float(n * 7 % 501)) for n in range(500)]
    began = time.monotonic()
    assert ranked(SPACE, many, 1)[0].reports[1]["last_pooled"] == 500.0
    assert to_promote(SPACE, many) is not None
    assert time.monotonic() - began < 1.0


def test_four_at_a_time_end_too(tmp_path: Path) -> None:
    ledger = whole(tmp_path, made_space(samples=16, **RUNGS), concurrent=4)
    assert all(trial.over for trial in ledger.records.trials)
    assert len(values(ledger)) == 16
