"""What a named data set *is*, as a digest. Imports neither torch nor pyarrow nor Pillow."""

from __future__ import annotations

import hashlib

from raycl.config.sources.entry import ShardsLayout
from raycl.config.spec import digest
from raycl.streams.folder_digest import folder_digest
from raycl.streams.shard_files import find_shards
from raycl.streams.sources.listing import Listing, listing_of
from raycl.streams.sources.placing import find, record_files


def source_digest(name: str, root: str | None) -> str:
    """Of images, classes and splits; not of where they lie."""
    placed = find(name, root)
    layout = placed.layout
    if layout.kind in ("files", "coop"):
        listing = listing_of(placed)
        return digest([_listing_digest(listing), folder_digest(placed.folder, listing.paths)])
    if isinstance(layout, ShardsLayout):
        folder = placed.folder / layout.folder
        files = [shard.path.relative_to(placed.folder).as_posix() for shard in find_shards(folder)]
    else:
        files = record_files(placed)
    meaning = [layout.model_dump(mode="json"), placed.entry.names.model_dump(mode="json")]
    return digest([*meaning, folder_digest(placed.folder, files)])


def _listing_digest(listing: Listing) -> str:
    """Which image is of which class and split, in order."""
    seen = hashlib.sha256("\n".join(listing.class_names).encode())
    seen.update(listing.labels.tobytes())
    seen.update("\n".join(listing.splits.tolist()).encode())
    seen.update("\n".join(listing.paths).encode(errors="surrogateescape"))
    return seen.hexdigest()
