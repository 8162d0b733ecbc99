"""TaskRungs: which trials go on beyond a rung, where rungs are numbers of learnt tasks.

Guarantees: a trial is compared only with trials that saw the same classes in the same order,
at the same task, by values that exist; a metric that is undefined there prunes nobody.
Decisions need no quorum: with n trials at a rung the best n/eta of them may go on, at any
time, so a trial that had to wait goes on once enough worse ones have come. Several objectives
are ranked by non-domination. Pure functions of the records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from raycl.config.space import Objective, Space, TaskRungs
from raycl.search.records import Trial, Values


def compared_at(space: Space, trial: Trial, limit: int | None) -> tuple[int, ...]:
    """The rungs at which a trial is compared: none but those of its first seed, since what won
    there is to be measured on the others."""
    if not isinstance(space.scheduler, TaskRungs) or trial.place > 0 or trial.tasks is None:
        return ()
    tasks = min(trial.tasks, limit) if limit is not None else trial.tasks
    return space.scheduler.at(tasks)


def goes_on(space: Space, trials: Sequence[Trial], trial: Trial, rung: int) -> bool:
    """Whether a trial that reported at a rung belongs to the best that may go on."""
    scheduler = space.scheduler
    if not isinstance(scheduler, TaskRungs) or not _comparable(space, trial.reports.get(rung, {})):
        return True
    return trial in _best_of(space, trials, scheduler, trial.group, rung)


def to_promote(space: Space, trials: Sequence[Trial]) -> Trial | None:
    """A waiting trial that may go on by now, of those that came furthest the best."""
    scheduler = space.scheduler
    if not isinstance(scheduler, TaskRungs):
        return None
    waiting = {(trial.done, trial.group) for trial in trials if trial.state == "paused"}
    for rung, group in sorted(waiting, reverse=True):
        for trial in _best_of(space, trials, scheduler, group, rung):
            if trial.state == "paused" and trial.done == rung:
                return trial
    return None


def _best_of(
    space: Space, trials: Sequence[Trial], scheduler: TaskRungs, group: str, rung: int
) -> list[Trial]:
    """Those of a group that may go on beyond a rung, by what is known now."""
    peers = peers_at(space, trials, group, rung)
    return ranked(space, peers, rung)[: int(len(peers) / scheduler.eta)]


def best_waiting(space: Space, trials: Sequence[Trial]) -> Trial | None:
    """The trial to bring home when nothing else is left and none of its peers came through."""
    home = {trial.group for trial in trials if trial.state == "complete"}
    waiting = [t for t in trials if t.state == "paused" and t.group not in home]
    if not waiting:
        return None
    furthest = max(trial.done for trial in waiting)
    return ranked(space, [t for t in waiting if t.done == furthest], furthest)[0]


def peers_at(space: Space, trials: Sequence[Trial], group: str, rung: int) -> list[Trial]:
    """All that can be compared there, whatever became of them later."""
    same = (t for t in trials if t.group == group and t.place == 0 and rung in t.reports)
    return [trial for trial in same if _comparable(space, trial.reports[rung])]


def _comparable(space: Space, values: Values) -> bool:
    return all(_is_number(values.get(goal.metric)) for goal in space.goals)


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def ranked(space: Space, trials: Sequence[Trial], rung: int) -> list[Trial]:
    """The best first: those that break a constraint last, then by non-domination, then by how
    much room they have to their neighbours. A few held-out samples tie often: then it is what
    was good after the earlier tasks too, and then what the sampler chose later, knowing more."""
    values = [trial.reports[rung] for trial in trials]
    excess = [_excess(space.constraints, one) for one in values]
    gains = [tuple(goal.gain(_number(one[goal.metric])) for goal in space.goals) for one in values]
    fronts = front_numbers(gains)
    room = _room(gains, fronts)
    before = [_gain_so_far(space.goals[0], trial, rung) for trial in trials]
    order = sorted(
        range(len(trials)),
        key=lambda i: (excess[i], fronts[i], -room[i], -before[i], -trials[i].sample),
    )
    return [trials[i] for i in order]


def _gain_so_far(goal: Objective, trial: Trial, rung: int) -> float:
    """Over all tasks up to the rung, of those where it is defined."""
    values = [reported.get(goal.metric) for done, reported in trial.reports.items() if done <= rung]
    return math.fsum(goal.gain(_number(v)) for v in values if _is_number(v))


def _number(value: float | None) -> float:
    assert value is not None
    return value


def _excess(constraints: Sequence[Objective], values: Mapping[str, float | None]) -> float:
    """Together; what is undefined yet breaks nothing."""
    known = [(one, values.get(one.metric)) for one in constraints]
    return sum(max(0.0, one.excess(v)) for one, v in known if v is not None)


def front_numbers(gains: Sequence[tuple[float, ...]]) -> list[int]:
    """0 for what nothing dominates, 1 for what only those do, and so on."""
    if gains and len(gains[0]) == 1:  # a line: its places from the top
        place = {gain: i for i, gain in enumerate(sorted(set(gains), reverse=True))}
        return [place[gain] for gain in gains]
    fronts = [-1] * len(gains)
    left, front = set(range(len(gains))), 0
    while left:
        free = {i for i in left if not any(dominates(gains[j], gains[i]) for j in left)}
        for i in free:
            fronts[i] = front
        left -= free
        front += 1
    return fronts


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """As good everywhere and better somewhere."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def _room(gains: Sequence[tuple[float, ...]], fronts: Sequence[int]) -> list[float]:
    """The crowding distance of NSGA-II within each front; of one objective always 0."""
    room = [0.0] * len(gains)
    if not gains or len(gains[0]) < 2:
        return room
    for front in set(fronts):
        members = [i for i, f in enumerate(fronts) if f == front]
        for axis in range(len(gains[0])):
            members.sort(key=lambda i: gains[i][axis])
            low, high = gains[members[0]][axis], gains[members[-1]][axis]
            room[members[0]] = room[members[-1]] = math.inf
            for before, here, after in zip(members, members[1:], members[2:], strict=False):
                room[here] += (gains[after][axis] - gains[before][axis]) / ((high - low) or 1.0)
    return room
