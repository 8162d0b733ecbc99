"""Journals: lists of events that many processes append to, on stores that cannot append.

Every event is one immutable object, whose name sorts by time; `compact` folds many into
one. An object maps ids to events, so one that was folded and not yet removed is still one.

Guarantees: no event is lost or doubled by a kill at any moment, by two compactions at
once, or by reading meanwhile; one process's events keep their order. Events of two
processes are ordered by their clocks, as good as those agree.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from raycl.config.spec import as_json, digest
from raycl.store.artefact import slug
from raycl.store.location import Location

Events = dict[str, dict[str, Any]]


class Journal:
    """One named journal of a store."""

    def __init__(self, location: Location, name: str, warn: Callable[[str], None]) -> None:
        # The digest keeps two names apart that have the same slug.
        self.folder = f"journals/{slug(name)}-{digest(name)[:8]}"
        self._epoch = f"{self.folder}/epoch.txt"
        self._location = location
        self._warn = warn
        self._warned: set[str] = set()
        self._last = 0

    def append(self, event: Mapping[str, Any]) -> None:
        """Adds one event: a mapping that JSON can carry exactly."""
        self._last = max(self._last + 1, time.time_ns())
        event_id = f"{self._last:020d}-{secrets.token_hex(4)}"
        self._write(f"event-{event_id}", {event_id: dict(event)})

    def read(self) -> list[dict[str, Any]]:
        """Every event, in order."""
        events = self._settled()[0]
        return [events[event_id] for event_id in sorted(events)]

    def compact(self) -> None:
        """Folds every event so far into one object."""
        events, sources = self._settled()
        if len(sources) < 2:
            return
        self._write(f"fold-{secrets.token_hex(8)}", events)
        self._location.write(self._epoch, secrets.token_hex(8).encode())
        for path in sorted(sources):
            self._location.delete(path)

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
        data = self._location.read(path)
        if data is None:
            return None
        try:
            body = json.loads(data)
            if digest(body["events"]) != body["checksum"]:
                raise ValueError("its checksum differs")
            return dict(body["events"])
        except (ValueError, TypeError, KeyError) as error:
            if path not in self._warned:
                self._warned.add(path)
                self._warn(f"an unreadable object of a journal was left out: {path} ({error})")
            return None
