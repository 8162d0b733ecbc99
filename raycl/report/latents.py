"""What a run's generators draw beside what they were fitted to: pictures from the store.

    result --needs--> last state, and by its name the earlier ones
    state  --needs--> the generators that its task brought, each with a picture in its notes

Guarantees: reads only what is shown, a few classes of one run per setting. What is not there,
because it is gone or was made before there were pictures, is left out and never an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from raycl.errors import CorruptArtefactError
from raycl.fitting.identity import KIND
from raycl.fitting.worker import NOTES, PICTURES, STEPS
from raycl.report.boards import boards
from raycl.report.figures import MOST_PANELS
from raycl.report.leaderboard import Result
from raycl.store.artefact import ArtefactSpec, Record
from raycl.store.store import Store

STATE = "state"


def with_latents(store: Store, results: Sequence[Result]) -> list[Result]:
    """The same results; of each setting, one run that has generators also holds `latents`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for board in boards(results):
        for setting in board.settings:
            for run in sorted(setting.runs, key=_seed):
                latents = latents_of(store, str(run["key"]))
                if latents:
                    found[str(run["key"])] = latents
                    break
    return [{**run, "latents": found[k]} if (k := run["key"]) in found else run for run in results]


def _seed(run: Result) -> int:
    return int((run.get("seeds") or {}).get("order", 0))


def latents_of(store: Store, key: str) -> list[dict[str, Any]]:
    """The first classes of a run in the order in which they were learnt, each with its points;
    none for a run without generators."""
    pictures = (p for task, g in _generators(store, key) for p in _pictures(store, g, task))
    return list(islice(pictures, MOST_PANELS))


def _generators(store: Store, key: str) -> Iterator[tuple[int, str]]:
    """The task of each generator of a run, and its key."""
    result = store.record(key)
    for last in result.needs if result else ():
        if last.startswith(f"{STATE}/") and (record := store.record(last)) is not None:
            for task in range(int(str(record.identity["task"])) + 1):
                state = store.record(_state_key(record, task))
                for needed in state.needs if state else ():
                    if needed.startswith(f"{KIND}/"):
                        yield task, needed


def _state_key(last: Record, task: int) -> str:
    """The states of one run are named alike, but for the task."""
    return ArtefactSpec(
        kind=last.kind,
        name=last.name,
        identity={**last.identity, "task": task},
        described={},
        revision=last.revision,
        parents=last.parents,
    ).key


def _pictures(store: Store, key: str, task: int) -> Iterator[dict[str, Any]]:
    """Of the classes of one artefact: one, unless they share a generator."""
    record = store.record(key)
    if record is None:
        return
    try:
        notes = store.read(record, only=(NOTES,))[NOTES]
    except CorruptArtefactError:
        return  # `raycl store verify` tells of it
    for note, picture in zip(notes["classes"], notes.get(PICTURES, ()), strict=False):
        yield {
            **{name: note[name] for name in ("name", "vectors", "dispersion")},
            "task": task,
            "real": _points(picture["real"], picture["unit"]),
            "sampled": _points(picture["sampled"], picture["unit"]),
            "share": picture["share"],
        }


def _points(text: str, unit: float) -> list[list[float]]:
    numbers = [int(number) * unit / STEPS for number in text.split()]
    return [list(point) for point in zip(numbers[::2], numbers[1::2], strict=True)]
