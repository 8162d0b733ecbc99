"""The store's garbage collector: what nothing needs any more.

Roots are results, pinned artefacts, and what live leases hold or need; whatever they
reach through `needs` and parents stays. Garbage is the rest once it is old enough (an
unfinished run stays resumable), files that belong to no record, files half written, old
heartbeats, claims of dead processes, and what a command that was killed had written to see
whether all nodes share the store.

Guarantees a dry run unless told otherwise, and that roots are looked up again right
before deleting. A claim from another host counts as live until it is older than `grace`.
Does not touch journals' events or logs.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from raycl.store.artefact import Record, is_key
from raycl.store.lease import Claim, claims
from raycl.store.location import TEMPORARY, StoredFile
from raycl.store.store import Store

ROOT_KIND = "result"
WEEK, HOUR = 7 * 86400.0, 3600.0
FOLDERS = ("artefacts", "leases", "pins", "journals", "pulses", "probes")


@dataclass(frozen=True)
class Garbage:
    """Something that can go: an artefact (with its key) or a single file."""

    path: str
    reason: str
    bytes: int
    key: str | None = None


@dataclass
class _Survey:
    """What lies in a store at one moment."""

    files: dict[str, list[StoredFile]] = field(default_factory=lambda: defaultdict(list))
    records: dict[str, Record] = field(default_factory=dict)
    claims: list[tuple[str, float, Claim | None]] = field(default_factory=list)
    half_written: list[StoredFile] = field(default_factory=list)
    pulses: list[StoredFile] = field(default_factory=list)
    probes: list[StoredFile] = field(default_factory=list)


def collect(
    store: Store, *, delete: bool = False, older_than: float = WEEK, grace: float = HOUR
) -> list[Garbage]:
    """The garbage of a store; with `delete`, what was removed of it."""
    found = _garbage(store, older_than, grace)
    if not delete:
        return found
    still = set(_garbage(store, older_than, grace))
    removed = [item for item in found if item in still and _remove(store, item, grace)]
    for folder in FOLDERS:
        store.location.tidy(folder)
    return removed


def _remove(store: Store, item: Garbage, grace: float) -> bool:
    if item.key is None:
        store.location.delete(item.path)
        return True
    if item.key in _leased(claims(store.location), time.time() - grace):
        return False
    store.discard(item.key)
    return True


def _garbage(store: Store, older_than: float, grace: float) -> list[Garbage]:
    now = time.time()
    survey = _survey(store)
    leased = _leased(survey.claims, now - grace)
    kept = _reachable(survey.records, leased | set(store.pins()))
    return [
        *_unreachable(survey, kept, now - older_than),
        *_orphans(survey, leased, now - grace),
        *(
            Garbage(file.path, "half written", file.size)
            for file in survey.half_written
            if file.modified < now - grace
        ),
        *(
            Garbage(file.path, "an old heartbeat", file.size)
            for file in survey.pulses
            if file.modified < now - max(older_than, grace)
        ),
        *(
            Garbage(file.path, "a question to nodes that nobody asks any more", file.size)
            for file in survey.probes
            if file.modified < now - grace
        ),
        *(
            Garbage(path, "a dead lease", 0)
            for path, modified, claim in survey.claims
            if not _is_live(modified, claim, now - grace)
        ),
    ]


def _survey(store: Store) -> _Survey:
    survey = _Survey(claims=list(claims(store.location)))
    for folder in FOLDERS:
        for file in store.location.files(folder):
            if file.path.endswith(TEMPORARY):
                survey.half_written.append(file)
            elif folder == "artefacts":
                survey.files[_key_of(file)].append(file)
            elif folder == "pulses":
                survey.pulses.append(file)
            elif folder == "probes":
                survey.probes.append(file)
    for record in store.records_of([key for key in survey.files if is_key(key)]):
        if record is not None:
            survey.records[record.key] = record
    return survey


def _key_of(file: StoredFile) -> str:
    return file.path.removeprefix("artefacts/").rpartition("/")[0]


def _is_live(modified: float, claim: Claim | None, since: float) -> bool:
    if claim is None or claim.process.is_gone():
        return False
    return claim.process.is_here() or modified >= since


def _leased(found: Iterable[tuple[str, float, Claim | None]], since: float) -> set[str]:
    """The keys that live leases hold or need."""
    keys: set[str] = set()
    for _, modified, claim in found:
        if claim is not None and _is_live(modified, claim, since):
            keys |= {claim.key, *claim.needs}
    return keys


def _reachable(records: dict[str, Record], roots: set[str]) -> set[str]:
    todo = [*roots, *(key for key, record in records.items() if record.kind == ROOT_KIND)]
    reached: set[str] = set()
    while todo:
        key = todo.pop()
        if key in reached:
            continue
        reached.add(key)
        if key in records:
            todo += [*records[key].needs, *records[key].parents]
    return reached


def _unreachable(survey: _Survey, kept: set[str], before: float) -> list[Garbage]:
    return [
        Garbage(f"artefacts/{key}", "no result, pin or lease needs it", record.total_bytes, key)
        for key, record in sorted(survey.records.items())
        if key not in kept and datetime.fromisoformat(record.created).timestamp() < before
    ]


def _orphans(survey: _Survey, leased: set[str], before: float) -> list[Garbage]:
    """Files that belong to no record; those of a live lease may be waiting for theirs."""
    found: list[Garbage] = []
    for key, files in sorted(survey.files.items()):
        record = survey.records.get(key)
        own = {"record.json", *(p.file for p in record.payloads.values())} if record else set()
        found += [
            Garbage(file.path, "belongs to no record", file.size)
            for file in files
            if key not in leased
            and file.modified < before
            and file.path.rpartition("/")[2] not in own
        ]
    return found
