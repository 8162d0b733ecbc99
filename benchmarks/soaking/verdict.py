"""Whether what a disturbed store and its commands say is what the undisturbed ones said.

Compared bit for bit: of a run everything in its result but seconds, counts of what was computed
and the device, so matrices, metrics, splits and versions; of a sweep every trial's reports, its
states, the best and its test; of a fit and a synthesis the files they write; and the checksums
of all stored payloads that are no JSON (states, predictions, generators, features, captions,
images), by key. Not compared: notes in JSON, which hold seconds, and partial states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raycl.search.ledger import open_ledger
from raycl.store.collect import WEEK, collect
from raycl.store.store import Store
from soaking.jobs import Job

VOLATILE = ("seconds", "computed", "reused", "device", "images_per_second", "painted", "out")
PASSING = ("leases", "probes")
"""Folders of a store in which nothing should stay."""

Essence = dict[str, Any]


def essence(job: Job, told: dict[str, Any], store: Path) -> Essence:
    """What a command's answer must not owe to the way it was computed."""
    match job.sort:
        case "run":
            return _steady(told)
        case "sweep":
            best = {name: told["best"][name] for name in ("sample", "params", "values")}
            kept = {name: told[name] for name in ("trials", "states", "task_steps", "test")}
            return {**kept, "best": best, "reports": _reports(job.name, store)}
        case "fit":
            notes = [_steady(note) for note in told["notes"]]
            return {**_steady(told), "notes": notes, "files": _files(job.out)}
        case "synth":
            return {**_steady(told), "files": _files(job.out)}
        case "replay":
            return told


def _steady(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in VOLATILE}


def _reports(name: str, store: Path) -> list[Any]:
    records = open_ledger(Store.open(str(store)), name).records
    return [
        [t.name, t.state, {str(d): {**v, "seconds": 0.0} for d, v in t.reports.items()}]
        for t in records.trials
    ]


def _files(folder: Path | None) -> dict[str, str]:
    """The digests of what a command wrote beside the store, JSON left out."""
    assert folder is not None
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and f.suffix != ".json"]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def payloads(store: Path) -> dict[str, dict[str, str]]:
    """The checksums of the payloads that are no JSON, by the artefact's key."""
    return {
        record.key: {
            name: payload.sha256
            for name, payload in record.payloads.items()
            if not name.endswith(".json")
        }
        for record in Store.open(str(store)).records()
        if record.kind != "partial"
    }


def differences(calm: Any, found: Any, where: str = "") -> Iterator[str]:
    """Where two trees of values differ."""
    if isinstance(calm, dict) and isinstance(found, dict):
        for name in sorted(calm.keys() | found.keys()):
            inner = f"{where}.{name}" if where else name
            if name not in found or name not in calm:
                yield f"{inner} is {'missing' if name not in found else 'new'}"
            else:
                yield from differences(calm[name], found[name], inner)
    elif calm != found:
        yield f"{where}: {str(found)[:80]} in place of {str(calm)[:80]}"


def store_differences(
    calm: dict[str, dict[str, str]], store: Path, damaged: set[str]
) -> Iterator[str]:
    """Of all artefacts; one that was damaged may be missing, where nothing needed it since."""
    found = payloads(store)
    for key in sorted(calm.keys() | found.keys()):
        if key not in found:
            if key not in damaged:
                yield f"{key} is missing"
        elif key not in calm:
            yield f"{key} is new"
        else:
            yield from differences(calm[key], found[key], key)


def unsound(store: Path, damaged: set[str]) -> Iterator[str]:
    """Stored files that are not what their records say, but for those we damaged."""
    for problem in Store.open(str(store)).verify():
        if problem.key not in damaged:
            yield f"{problem.file}: {problem.what}"


def left_behind(store: Path) -> Iterator[str]:
    """What the garbage collector leaves of leases, heartbeats and files half written."""
    collect(Store.open(str(store)), delete=True, older_than=WEEK, grace=0.0)
    for file in sorted(store.rglob("*")):
        path = file.relative_to(store)
        passing = path.parts[0] in PASSING and file.is_file()
        if passing or path.name.endswith(".tmp"):
            yield f"left in the store: {path}"
