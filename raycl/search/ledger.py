"""Where a sweep is written down: a journal in the store, which is the only truth there is.

Every event is one immutable object; the state in memory is rebuilt by reading them, so a
driver that is killed at any moment has lost nothing that it had told. A second driver of the
same sweep waits for the first. The same name with another meaning is refused. Where an object
was damaged on disk, the sweep goes on from what came before it: decisions build on each other,
and the runs behind what is forgotten are in the store, so they are found and told again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raycl.config.space import Space
from raycl.config.space_files import check_space, differences, meaning, space_of
from raycl.config.spec import digest
from raycl.errors import ConfigError
from raycl.search.records import Records
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store

INDEX = "sweeps"
FOLD_EVERY = 400
"""Events that are folded into one object, so that reading them again stays quick."""


@dataclass(frozen=True)
class Entry:
    """A sweep that was begun: its id, its space as it was then, and when."""

    id: str
    name: str
    written: dict[str, Any]
    """The space as it was written down, perhaps by another version."""
    at: float

    @property
    def space(self) -> Space:
        """Raises a `ConfigError` if this version knows no such space."""
        return space_of(self.written, self.name)


class Ledger:
    """One sweep, open for writing (in one process) or for reading."""

    def __init__(self, store: Store, entry: Entry, space: Space) -> None:
        self.store, self.entry, self.space = store, entry, space
        self._journal = store.journal(f"sweep/{entry.id}")
        self._since_fold = 0
        self.records = Records(space)
        for event in self._journal.read_to_damage():
            self.records.take(event)

    def mend(self) -> None:
        """Takes away what was damaged and all that was built on it."""
        self._journal.cut_at_damage()

    def write(self, event: str, **what: Any) -> None:
        """Writes an event down, and only then lets it count."""
        whole = {"event": event, "at": time.time(), **what}
        self._journal.append(whole)
        self.records.take(whole)
        self._since_fold += 1
        if self._since_fold >= FOLD_EVERY:
            self.fold()

    def fold(self) -> None:
        """Folds the journal's objects into one."""
        self._journal.compact()
        self._since_fold = 0


def entries(store: Store, name: str | None = None) -> list[Entry]:
    """The sweeps of a store, oldest first."""
    found = []
    for event in store.journal(INDEX).read():
        if event.get("event") == "begun" and name in (None, event["name"], event["id"]):
            found.append(Entry(event["id"], event["name"], event["space"], event["at"]))
    return found


def names_of(known: Sequence[Entry]) -> str:
    """For a sentence."""
    return ", ".join(dict.fromkeys(entry.name for entry in known)) or "none"


def open_ledger(store: Store, reference: str) -> Ledger:
    """A sweep by its name (the newest of that name) or by its id, to be read."""
    known = entries(store)
    found = [e for e in known if e.id == reference] or [e for e in known if e.name == reference]
    if not found:
        known_names = f"known: {names_of(known)}"
        raise ConfigError("the store holds no such sweep", got=reference, do=known_names)
    return Ledger(store, found[-1], found[-1].space)


@contextlib.contextmanager
def driven_ledger(store: Store, space: Space, *, new: bool = False) -> Iterator[Ledger]:
    """The sweep of a space, begun or continued, while this process alone drives it."""
    check_space(space)
    assert space.name is not None
    with store.lease(_lease_of(space.name)):
        known = entries(store, space.name)
        if new or not known:
            entry = _begin(store, space, len(known))
        else:
            entry = known[-1]
            _refuse_another(entry, space)
        ledger = Ledger(store, entry, space)
        ledger.mend()
        ledger.fold()
        yield ledger


def _begin(store: Store, space: Space, before: int) -> Entry:
    assert space.name is not None
    name = space.name
    dumped = space.model_dump(mode="json", by_alias=True)
    entry = Entry(f"{name}-{before + 1}" if before else name, name, dumped, time.time())
    store.journal(INDEX).append(
        {"event": "begun", "id": entry.id, "name": name, "space": dumped, "at": entry.at}
    )
    return entry


def _refuse_another(entry: Entry, space: Space) -> None:
    try:
        lines = list(differences(meaning(entry.space), meaning(space)))
    except ConfigError as error:  # written by a version that knew other options
        lines = [str(error)]
    if lines:
        raise ConfigError(
            f"the sweep {entry.id} was begun with another space",
            got="; ".join(lines),
            do="change it back to continue, or begin another of that name with --new",
        )


def _lease_of(name: str) -> ArtefactSpec:
    """What a driver holds; nothing is ever stored under it."""
    return ArtefactSpec("sweep", name, {"sweep": digest(name)}, {"sweep": name})
