"""The store that a command reads from: one that is there, never one made by a typo."""

from __future__ import annotations

from raycl.config.places import at_home, is_there
from raycl.engine.run import default_store
from raycl.errors import ConfigError
from raycl.store.store import Store


def existing_store(uri: str | None) -> Store:
    """The store named, or the default one; it must exist."""
    place = uri or default_store()
    if "://" not in place and not is_there(at_home(place)):
        raise ConfigError(
            "there is no store here", got=place, do="name one with --store, or run something first"
        )
    return Store.open(place)
