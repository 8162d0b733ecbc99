"""The store that a command reads from: one that is there, never one made by a typo."""

from __future__ import annotations

from pathlib import Path

from raycl.engine.run import default_store
from raycl.errors import ConfigError
from raycl.store.store import Store


def existing_store(uri: str | None) -> Store:
    """The store named, or the default one; it must exist."""
    place = uri or default_store()
    if "://" not in place and not Path(place).expanduser().exists():
        raise ConfigError(
            "there is no store here", got=place, do="name one with --store, or run something first"
        )
    return Store.open(place)
