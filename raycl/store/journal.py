"""Journals: lists of events that many processes append to, on stores that cannot append.

Every event is one immutable object, whose name sorts by time; `compact` folds many into
one. An object maps ids to events, so one that was folded and not yet removed is still one.

Guarantees: no event is lost or doubled by a kill at any moment, by two compactions at
once, or by reading meanwhile; one process's events keep their order. Events of two
processes are ordered by their clocks, as good as those agree. An object that was damaged on
disk is noticed: whoever reads events that stand alone gets the others; whoever rebuilds a
state from them reads what came before it, and may have the journal end there.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from raycl.config.spec import as_json, digest
from raycl.errors import CorruptArtefactError
from raycl.store.artefact import slug
from raycl.store.location import Location

Events = dict[str, dict[str, Any]]
_EVENT = "event-"


class Journal:
    """One named journal of a store."""

    def __init__(self, location: Location, name: str, warn: Callable[[str], None]) -> None:
        # The digest keeps two names apart that have the same slug.
        self.folder = f"journals/{slug(name)}-{digest(name)[:8]}"
        self._epoch = f"{self.folder}/epoch.txt"
        self._location = location
        self._warn = warn
        self._damaged: set[str] = set()
        self._last = 0

    def append(self, event: Mapping[str, Any]) -> None:
        """Adds one event: a mapping that JSON can carry exactly."""
        self._last = max(self._last + 1, time.time_ns())
        event_id = f"{self._last:020d}-{secrets.token_hex(4)}"
        self._write(f"{_EVENT}{event_id}", {event_id: dict(event)})

    def read(self) -> list[dict[str, Any]]:
        """Every event, in order."""
        events = self._settled()[0]
        return [events[event_id] for event_id in sorted(events)]

    def read_to_damage(self) -> list[dict[str, Any]]:
        """The events, in order, that came before any that cannot be read."""
        events = self._before_damage(self._settled()[0])
        return [events[event_id] for event_id in sorted(events)]

    def cut_at_damage(self) -> None:
        """Lets the journal end before what cannot be read, for the process that alone writes it."""
        events, sources = self._settled()
        if self._damaged:
            # What was damaged goes last: as long as it is there, this can be done again.
            self._fold(self._before_damage(events), [*sorted(sources), *sorted(self._damaged)])
            self._damaged.clear()

    def compact(self) -> None:
        """Folds every event so far into one object."""
        events, sources = self._settled()
        if len(sources) >= 2:
            self._fold(events, sorted(sources))

    def _fold(self, events: Events, sources: list[str]) -> None:
        self._write(f"fold-{secrets.token_hex(8)}", events)
        self._location.write(self._epoch, secrets.token_hex(8).encode())
        for path in sources:
            self._location.delete(path)

    def _before_damage(self, events: Events) -> Events:
        """An event's object is named by its id; what a fold held could be anything."""
        if not self._damaged:
            return events
        names = (path.rpartition("/")[2].removesuffix(".json") for path in self._damaged)
        first = min(name.removeprefix(_EVENT) if name.startswith(_EVENT) else "" for name in names)
        return {event_id: event for event_id, event in events.items() if event_id < first}

    def _write(self, name: str, events: Events) -> None:
        body = as_json(events)
        data = json.dumps({"checksum": digest(body), "events": body}).encode()
        self._location.write(f"{self.folder}/{name}.json", data)

    def _settled(self) -> tuple[Events, set[str]]:
        """All events and the objects they came from, however others compact meanwhile.

        A listing is no snapshot: it may miss a fold that is new and an event that is just
        gone. Whoever removes objects changes the epoch first, so an epoch that stood still
        tells that the newest fold was there all along.
        """
        events: Events = {}
        sources: set[str] = set()
        epoch = self._location.read(self._epoch)
        while True:
            listed = self._list()
            for path in sorted(listed - sources):
                found = self._load(path)
                if found is not None:
                    events |= found
                    sources.add(path)
            before, epoch = epoch, self._location.read(self._epoch)
            if epoch == before:
                return events, sources & listed

    def _list(self) -> set[str]:
        files = self._location.files(self.folder)
        return {file.path for file in files if file.path.endswith(".json")}

    def _load(self, path: str) -> Events | None:
        try:
            return self._location.read_as(path, _events)
        except CorruptArtefactError as error:
            if path not in self._damaged:
                self._damaged.add(path)
                self._warn(f"an unreadable object of a journal was left out: {path} ({error.what})")
            return None


def _events(data: bytes) -> Events:
    """The events in an object's bytes; `CorruptArtefactError` if it is not whole."""
    try:
        body = json.loads(data)
        if digest(body["events"]) != body["checksum"]:
            raise ValueError("its checksum differs")
        return dict(body["events"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptArtefactError(str(error)) from error
