"""Pins: artefacts that a person wants kept, each with the reason."""

from __future__ import annotations

import json

from raycl.store.artefact import is_key
from raycl.store.location import TEMPORARY, Location


class Pins:
    """The pins of one store, one small file each."""

    def __init__(self, location: Location) -> None:
        self._location = location

    def add(self, key: str, why: str) -> None:
        self._location.write(_path(key), json.dumps({"why": why}).encode())

    def remove(self, key: str) -> None:
        self._location.delete(_path(key))

    def all(self) -> dict[str, str]:
        """Pinned keys and why; a pin that cannot be read still pins."""
        found: dict[str, str] = {}
        for file in self._location.files("pins"):
            key = file.path.removeprefix("pins/").removesuffix(".json")
            if is_key(key) and not file.path.endswith(TEMPORARY):
                found[key] = self._why(file.path)
        return found

    def _why(self, path: str) -> str:
        try:
            return str(json.loads(self._location.read(path) or b"{}")["why"])
        except (ValueError, KeyError, TypeError):
            return "unreadable"


def _path(key: str) -> str:
    return f"pins/{key}.json"
