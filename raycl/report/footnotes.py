"""What must stand below a table for its figures to mean something: the protocol, in sentences.

Guarantees: plain text, the same for every row of a board; what a result does not record is left
out and never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raycl.report.boards import Board
from raycl.report.leaderboard import Result

DAGGER = "†"
"""Marks what was imported."""

_SPACES = {
    "class-incremental": "class-incremental: accuracies are among the classes seen so far, "
    "columns with (all) among all classes of the stream",
    "x-tail": "X-TAIL: transfer, average (all) and last (all) are among all classes of all "
    "domains at every stage; the other columns among the classes seen so far",
    "task-incremental": "task-incremental: the task of every test sample is told, so these "
    "figures are for diagnosis alone",
}


def protocol_notes(board: Board) -> list[str]:
    """One sentence for each part of the protocol that the board's results record."""
    run, notes = board.runs[0], []
    protocol = board.first.protocol
    notes.append(f"Protocol {_SPACES.get(protocol, protocol)}.")
    if data := _data(run):
        notes.append(data)
    if seeds := _seeds(board.runs):
        notes.append(seeds)
    if judged := _judged(run):
        notes.append(judged)
    notes += _imported(board.runs)
    return notes


def is_imported(runs: Sequence[Result]) -> bool:
    """Whether somebody else measured it."""
    return any(run.get("imported") for run in runs)


def _data(run: Result) -> str:
    tasks = run.get("tasks") or []
    if not tasks or not isinstance(tasks[0], Mapping):
        return ""
    classes = sum(len(task["classes"]) for task in tasks)
    shots = _part(run, "stream").get("shots")
    trained = sum(task["train"] for task in tasks)
    drawn = f" ({shots} a class)" if shots else ""
    return (
        f"{classes:,} classes in {len(tasks)} tasks, {trained:,} training samples{drawn}, "
        f"{sum(task['test'] for task in tasks):,} test samples."
    )


def _seeds(runs: Sequence[Result]) -> str:
    found = [run["seeds"] for run in runs if "order" in (run.get("seeds") or {})]
    if not found:
        return ""
    orders = ", ".join(map(str, sorted({int(seeds["order"]) for seeds in found})))
    if all(len(set(seeds.values())) == 1 for seeds in found):
        return f"Seeds {orders}: of class order, shots, validation split and training alike."
    return f"Class orders of seeds {orders}; other seeds differ from them."


def _judged(run: Result) -> str:
    validation = _part(run, "validation")
    if not validation:
        return ""
    if validation.get("judge") == "held_out":
        return "Development figures: judged on held-out training samples, not on the test data."
    first_k = validation.get("first_k")
    whose = "all tasks" if validation.get("scope") == "all" else f"the first {first_k} tasks"
    share = f"{100 * float(validation.get('fraction', 0)):g} %"
    return (
        "Judged on the test data. What a method chooses, it chooses on "
        f"{share} of the training samples of {whose}."
    )


def _imported(runs: Sequence[Result]) -> list[str]:
    files = dict.fromkeys(str(run["imported"]["file"]) for run in runs if run.get("imported"))
    return [f"{DAGGER} Imported from {', '.join(files)}: measured elsewhere."] if files else []


def _part(run: Result, name: str) -> Mapping[str, Any]:
    found = (run.get("experiment") or {}).get(name)
    return found if isinstance(found, Mapping) else {}
