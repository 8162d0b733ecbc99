"""What may be wrong with a run, judged from its stored predictions.

Guarantees: every finding has its figure and the threshold that it is held against; what a
run has no evidence for is named with the reason, never judged. The thresholds are rules
of thumb, listed in docs/results.md; they decide nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from raycl.metrics import diagnosis as d
from raycl.metrics.predictions import StagePredictions
from raycl.report.figures import Figure, HeatMap, Line, LineChart, Matrix, Name
from raycl.report.leaderboard import Cell

Verdict = Literal["good", "watch", "bad"]

CHANCE = 0.025
"""A sign test below this, divided by the number of tests, is not put down to chance."""

DROP = (5.0, 15.0)
RECENCY = (1.25, 2.0)
ECE = (10.0, 20.0)
NEVER = (2.0, 10.0)
MACRO_GAP = (2.0, 5.0)
PAIR = (30.0, 50.0)
PROBE_LOSS = (1.0, 5.0)
ROUTING = (10.0, 25.0)
TO_NEWEST = (10.0, 25.0)
"""From the first on to be watched, from the second on bad."""

LISTED = 8
SMALLEST_PAIR = 5
"""Fewer samples do not make a confused pair."""


@dataclass(frozen=True)
class Finding:
    """One figure held against its threshold."""

    name: str
    title: str
    figure: float
    unit: str
    threshold: str
    verdict: Verdict
    text: str
    details: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """All findings about a run, the worst first, and its pictures."""

    key: str
    label: str
    stream: str
    findings: list[Finding]
    not_judged: dict[str, str]
    """What there is no evidence for, and why."""
    figures: list[Figure]

    def as_json(self) -> dict[str, Any]:
        """Plain data in full precision."""
        return {
            "key": self.key,
            "label": self.label,
            "stream": self.stream,
            "findings": [asdict(finding) for finding in self.findings],
            "not_judged": self.not_judged,
        }


def diagnose(
    run: Mapping[str, Any],
    stages: Sequence[StagePredictions],
    zero_shot: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Judge a result by all its stored predictions; `zero_shot` is that method's own result
    on the same tasks, which tells a growing label space from forgetting."""
    tasks = [list(task["classes"]) for task in run["tasks"]]
    found: list[Finding] = []
    missing: dict[str, str] = {}
    last = d.last_stage(stages, tasks)
    for part in (
        _below_zero_shot(run, stages, tasks),
        _arrival(run),
        _early_drop(run, zero_shot),
        _recency(run),
        _calibration(run, "ece_seen", "calibration, learnt classes"),
        _calibration(run, "ece_unseen", "calibration, classes not learnt yet"),
        _imbalance(run, last),
        *(() if last is None else (_never(run, last), _pairs(run, last))),
        _probe(run),
        _routing(run),
        _to_newest(run),
    ):
        for one in part if isinstance(part, list) else [part]:
            if isinstance(one, Finding):
                found.append(one)
            elif one is not None:
                missing[one[0]] = one[1]
    rank = {"bad": 0, "watch": 1, "good": 2}
    return Diagnosis(
        str(run["key"]),
        str(run.get("label") or run["method"]),
        str(run.get("stream_label") or run["stream"]),
        sorted(found, key=lambda finding: rank[finding.verdict]),
        missing,
        [] if last is None else _figures(last, tasks),
    )


_Part = Finding | tuple[str, str] | None


def _verdict(figure: float, limits: tuple[float, float]) -> Verdict:
    return "bad" if figure >= limits[1] else "watch" if figure >= limits[0] else "good"


def _limits(limits: tuple[float, float], unit: str) -> str:
    return f"watch from {limits[0]:g} {unit}, bad from {limits[1]:g} {unit}"


def _below_zero_shot(
    run: Mapping[str, Any], stages: Sequence[StagePredictions], tasks: list[list[int]]
) -> list[_Part]:
    if run["method"] == "zero_shot":
        return []
    paired = d.against_zero_shot(stages, tasks)
    if paired is None:
        return [("below zero-shot", "zero-shot has no predictions on all of these classes")]
    whole, parts = paired
    below = whole.points < 0
    sure = below and whole.below_by_chance < CHANCE
    overall = Finding(
        "below_zero_shot",
        "against zero-shot",
        whole.points,
        "points",
        f"bad below 0, unless chance explains it (sign test, {CHANCE:g})",
        "bad" if sure else "watch" if below else "good",
        f"After the last task {whole.only_after} test samples are right only thanks to learning, "
        f"{whole.only_before} only without it, of {whole.samples}.",
    )
    judged = [(t, p) for t, p in enumerate(parts) if p is not None]
    limit = CHANCE / len(judged)
    worse = [(t, p) for t, p in judged if p.points < 0 and p.below_by_chance < limit]
    per_task = Finding(
        "tasks_below_zero_shot",
        "tasks below zero-shot",
        float(len(worse)),
        f"of {len(judged)} tasks",
        f"watch from 1 task, bad from half of them (sign test, {CHANCE:g} over all tasks)",
        "bad" if 2 * len(worse) >= len(judged) else "watch" if worse else "good",
        "Tasks on which the method ends worse than the backbone that it started from.",
        [f"task {t + 1}: {p.points:+.1f} points on {p.samples} samples" for t, p in worse],
    )
    return [overall, per_task] if len(tasks) > 1 else [overall]


def _arrival(run: Mapping[str, Any]) -> _Part:
    """A method whose keys drift while it knows few classes loses them to those not learnt."""
    if len(run["tasks"]) < 2 or run["method"] == "zero_shot":
        return None
    bare, union = run.get("zero_shot") or [], run["r_union"]
    if not union or union[0][-1] is None:  # no rule for unseen classes
        return None
    pairs = [(bare[t], union[t][t]) for t in range(min(len(bare), len(union)))]
    lost = [before - after for before, after in pairs if before is not None and after is not None]
    if not lost:
        return None
    worst = max(lost)
    return Finding(
        "loss_at_arrival",
        "newest task among all classes",
        worst,
        "points",
        _limits(DROP, "points"),
        _verdict(worst, DROP),
        "Zero-shot's accuracy on a task minus the run's own right after learning it, among all "
        f"classes of the stream; the worst task, which is task {lost.index(worst) + 1}. Where it "
        "is high, learnt classes score too low beside those not learnt yet, and transfer flatters.",
    )


def _early_drop(run: Mapping[str, Any], zero_shot: Mapping[str, Any] | None) -> _Part:
    if len(run["tasks"]) < 2 or run["method"] == "zero_shot":
        return None
    fixed = _first_task(run, "r_union") if run["r_union"][0][-1] is not None else None
    growing = _first_task(run, "r_seen")
    base = _first_task(zero_shot, "r_seen") if zero_shot else None
    if fixed is not None:
        drop, how = fixed, "among all classes, so that the label space does not grow"
    elif growing is not None and base is not None:
        drop = growing - base
        how = f"beyond the {base:.1f} that the growing label space costs zero-shot"
    else:
        why = (
            "the label space grows; a zero_shot run on this stream and seed would tell how much "
            "that alone costs"
        )
        return "early-task drop", why
    return Finding(
        "early_task_drop",
        "early-task drop",
        drop,
        "points",
        _limits(DROP, "points"),
        _verdict(drop, DROP),
        f"The first task's accuracy, from when it was learnt to the end, {how}.",
    )


def _first_task(run: Mapping[str, Any], matrix: str) -> float | None:
    first, last = run[matrix][0][0], run[matrix][-1][0]
    return None if first is None or last is None else float(first - last)


def _recency(run: Mapping[str, Any]) -> _Part:
    share, why = _metric(run, "predicted_recent")
    fair, _ = _metric(run, "predicted_recent_fair")
    if len(run["tasks"]) < 2:
        return None
    if share is None or not fair:
        return "recency bias", why or "the newest task has no test samples"
    ratio = share / fair
    return Finding(
        "recency_bias",
        "recency bias",
        ratio,
        "× fair share",
        _limits(RECENCY, "×"),
        _verdict(ratio, RECENCY),
        f"{share:.1f} % of all test samples are predicted as classes of the newest task, "
        f"which holds {fair:.1f} % of them.",
    )


def _calibration(run: Mapping[str, Any], metric: str, title: str) -> _Part:
    error, why = _metric(run, metric)
    if error is None:
        return (title, why) if len(run["tasks"]) > 1 else None
    return Finding(
        metric,
        title,
        error,
        "points",
        _limits(ECE, "points"),
        _verdict(error, ECE),
        "Mean distance of confidence from accuracy (15 bins, mean over stages). It means little "
        "where scores are distances and not logits.",
    )


def _imbalance(run: Mapping[str, Any], last: StagePredictions | None) -> list[_Part]:
    out: list[_Part] = []
    empty = run.get("empty_test_classes") or []
    if empty:
        out.append(
            Finding(
                "empty_classes",
                "classes without test samples",
                float(len(empty)),
                "classes",
                "watch from 1 class",
                "watch",
                "They are learnt and never tested: no figure speaks of them.",
                _some([_name(run, c) for c in empty]),
            )
        )
    pooled, why = _metric(run, "last_pooled")
    macro, _ = _metric(run, "last_macro")
    if pooled is None or macro is None or last is None:
        return [*out, ("imbalance", why or "the last stage was not evaluated")]
    counts = np.unique(last.label, return_counts=True)[1]
    gap = abs(pooled - macro)
    out.append(
        Finding(
            "imbalance",
            "imbalance",
            gap,
            "points",
            _limits(MACRO_GAP, "points"),
            _verdict(gap, MACRO_GAP),
            f"Between accuracy over samples ({pooled:.1f} %) and mean over classes "
            f"({macro:.1f} %); classes have {counts.min()} to {counts.max()} test samples.",
        )
    )
    return out


def _never(run: Mapping[str, Any], last: StagePredictions) -> Finding:
    classes = d.never_predicted(last)
    share = 100.0 * len(classes) / len(np.unique(last.label))
    return Finding(
        "never_predicted",
        "classes never predicted",
        share,
        "% of classes",
        _limits(NEVER, "%"),
        _verdict(share, NEVER),
        f"{len(classes)} tested classes are predicted for no test sample after the last task.",
        _some([_name(run, c) for c in classes]),
    )


def _pairs(run: Mapping[str, Any], last: StagePredictions) -> _Part:
    pairs = d.confused_pairs(last, SMALLEST_PAIR)
    if not pairs:
        return "confused classes", f"no class is taken for another {SMALLEST_PAIR} times or more"
    worst = pairs[0]
    listed = [
        f"{_name(run, p.label)} taken for {_name(run, p.predicted)}: "
        f"{p.count} times, {p.share:.0f} %"
        for p in pairs[:LISTED]
    ]
    return Finding(
        "confused_classes",
        "most confused classes",
        worst.share,
        "% of a class",
        _limits(PAIR, "%"),
        _verdict(worst.share, PAIR),
        "The largest share of one class's test samples that goes to one other class "
        f"(at least {SMALLEST_PAIR} samples).",
        listed,
    )


def _probe(run: Mapping[str, Any]) -> _Part:
    change, _ = _metric(run, "probe_drop")
    if change is None:
        return None
    return Finding(
        "probe_drop",
        "loss on the probe",
        -change,
        "points",
        _limits(PROBE_LOSS, "points"),
        _verdict(-change, PROBE_LOSS),
        "Zero-shot accuracy on data that is never trained, before any task minus at the end.",
    )


def _routing(run: Mapping[str, Any]) -> _Part:
    """Of methods that send each input to the head of one task."""
    figures = _last_figures(run)
    oracle, hard = figures.get("accuracy_oracle"), figures.get("accuracy_hard")
    if oracle is None or hard is None:
        return None
    return Finding(
        "routing_loss",
        "loss to routing",
        oracle - hard,
        "points",
        _limits(ROUTING, "points"),
        _verdict(oracle - hard, ROUTING),
        "Accuracy if every test were sent to the head of its own task, minus the accuracy.",
        [f"task {t + 1}: {share:.0f} % routed right" for t, share in _routed(figures)],
    )


def _to_newest(run: Mapping[str, Any]) -> _Part:
    """The sign of a router that tells real images from drawn ones."""
    figures = _last_figures(run)
    sent, fair = figures.get("old_to_newest"), figures.get("fair_to_newest")
    if sent is None or fair is None:
        return None
    return Finding(
        "old_to_newest",
        "older tasks sent to the newest",
        sent - fair,
        "points",
        _limits(TO_NEWEST, "points"),
        _verdict(sent - fair, TO_NEWEST),
        f"Of the tests of older tasks {sent:.1f} % were routed to the newest task; if all that "
        f"goes wrong went everywhere alike, it would be {fair:.1f} %.",
    )


def _last_figures(run: Mapping[str, Any]) -> Mapping[str, Any]:
    of_tasks: list[Mapping[str, Any]] = run.get("figures") or [{}]
    return of_tasks[-1]


def _routed(figures: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Each task's share that was routed right, the worst first."""
    shares = [(t, figures.get(f"task_{t + 1}.routed")) for t in range(len(figures))]
    known = [(t, share) for t, share in shares if share is not None]
    return sorted(known, key=lambda pair: pair[1])[:LISTED]


def _metric(run: Mapping[str, Any], name: str) -> tuple[float | None, str]:
    return run["metrics"].get(name), run.get("why_null", {}).get(name, "not in the result")


def _name(run: Mapping[str, Any], class_id: int) -> str:
    return str(run["class_names"][class_id])


def _some(names: list[str]) -> list[str]:
    more = [f"and {len(names) - LISTED} more"] if len(names) > LISTED else []
    return [*names[:LISTED], *more]


def _figures(last: StagePredictions, tasks: list[list[int]]) -> list[Figure]:
    if len(tasks) < 2:
        return []
    labels = [str(t + 1) for t in range(len(tasks))]
    values = [
        [None if np.isnan(v) else float(v) for v in row] for row in d.task_confusion(last, tasks)
    ]
    confusion = HeatMap(
        "confusion",
        "Confusion among tasks",
        "Of the test samples of a task (row), the percentage predicted as a class of each task.",
        [Matrix("after the last task", labels, labels, values, "no test samples")],
        "task",
        "predicted task",
    )
    predicted, fair = d.predicted_shares(last, tasks)
    shares = LineChart(
        "shares",
        "Predicted share by task",
        "What the test samples are predicted as, beside what they are.",
        "task",
        [
            Line(Name("predicted", 0), [Cell(float(v)) for v in predicted]),
            Line(Name("fair share", 1, reference=True), [Cell(float(v)) for v in fair]),
        ],
        place="task",
        y_label="share of samples, %",
    )
    return [confusion, shares]
