"""What jobs and runs are doing, as they tell it in the store: no cluster need answer.

Guarantees: looks only; a folder that this machine does not see is an error, never made.
"""

from __future__ import annotations

from raycl.config.places import at_home, is_folder
from raycl.errors import StoreError
from raycl.store.location import Location, open_location
from raycl.store.pulses import Heard, heard, standing

DAY = 86400.0


def doing(store: str, job: str | None = None) -> list[Heard]:
    """What a job (an id, or its beginning) is doing; without one, all that beat within a day."""
    found = heard(seen(store))
    if job is None:
        found = [one for one in found if one.age < DAY]
    else:
        found = [one for one in found if one.job.startswith((job, f"raycl-{job}"))]
    return standing(found)


def seen(store: str) -> Location:
    """The place of a store that exists, as seen from this machine."""
    if "://" not in store and not is_folder(at_home(store)):
        raise StoreError(
            "this machine does not see the store",
            got=store,
            do="ask where the folder is mounted, or name the store with --store",
        )
    return open_location(store)
