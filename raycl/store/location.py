"""Where a store lives: one small interface over a local folder and an object store.

Guarantees, for every implementation: a write is seen whole or not at all; deleting what
is not there is no error; a listing of what is not there is empty; every failure is a
`StoreError` (`DiskFullError` when space ran out) that says what to do.
Does not lock, retry at length or cache. Paths are relative to the root, with slashes.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from raycl.config.places import at_home
from raycl.errors import CorruptArtefactError, DiskFullError, StoreError

TEMPORARY = ".tmp"
"""How the name of a file ends that is being written and was not renamed yet."""

_READ_ATTEMPTS = 3

T = TypeVar("T")

SCHEMES = ("file", "s3", "gs")


@dataclass(frozen=True)
class StoredFile:
    """One stored object: its path under the root, its bytes, when it was last written."""

    path: str
    size: int
    modified: float


class Location(ABC):
    """A place that holds named bytes."""

    uri: str
    local_root: Path | None = None

    def read_as(self, path: str, parse: Callable[[bytes], T]) -> T | None:
        """What `parse` makes of the bytes there, or None; it may raise CorruptArtefactError.

        Read again before that is believed: an object store asks for the size first, and
        cuts short an object that is replaced by a longer one meanwhile.
        """
        for _ in range(_READ_ATTEMPTS - 1):
            data = self.read(path)
            with contextlib.suppress(CorruptArtefactError):
                return None if data is None else parse(data)
        data = self.read(path)
        return None if data is None else parse(data)

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """The bytes there, or None where there are none."""

    def view(self, path: str) -> bytes | memoryview | None:
        """The bytes there without a copy of them, where the place can give that."""
        return self.read(path)

    @abstractmethod
    def write(self, path: str, data: bytes | memoryview) -> None:
        """Puts the bytes there at once, with whatever folders they need."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Removes one object, if it is there."""

    @abstractmethod
    def size(self, path: str) -> int | None:
        """The number of bytes there, or None where there are none."""

    @abstractmethod
    def tidy(self, under: str) -> None:
        """Removes empty folders, where there is such a thing."""

    @abstractmethod
    def files(self, under: str) -> Iterator[StoredFile]:
        """Every object below a folder, at any depth, in no order."""


def open_location(uri: str) -> Location:
    """The place that a URI or a local path names, reachable and usable."""
    scheme = urlsplit(uri).scheme if "://" in uri else "file"
    if scheme == "file":
        from raycl.store.local_folder import LocalFolder

        return LocalFolder(_local_path(uri))
    if scheme in SCHEMES:
        from raycl.store.bucket import Bucket

        return Bucket(uri)
    close = difflib.get_close_matches(scheme, SCHEMES, n=1, cutoff=0.3)
    hint = f"did you mean {close[0]}://? " if close else ""
    raise StoreError(
        "a store cannot live under this kind of address",
        got=f"{scheme}://",
        do=f"{hint}use a local path, s3://bucket/folder or gs://bucket/folder",
    )


def _local_path(uri: str) -> Path:
    if not uri or "\0" in uri:
        raise StoreError("a store needs a path or a URI", got=repr(uri), do="name a folder")
    if "://" not in uri:
        scheme = uri.partition(":/")[0]
        if scheme in SCHEMES and scheme != uri:
            raise StoreError("an address has two slashes", got=uri, do=f"write {scheme}://…")
        return at_home(uri)
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise StoreError(
            "a file:// address has an empty host", got=uri, do=f"use file:///{parts.netloc}/…"
        )
    return Path(unquote(parts.path))


def explain(error: OSError, doing: str, where: str) -> StoreError:
    """The store's own error for what the operating system said."""
    if isinstance(error, StoreError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"no space left while {doing}",
            got=where,
            do="free some space (`raycl store gc` lists what can go) and run the same command "
            "again: what was finished is kept",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "make it writable for this user, or use another store"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        advice = "a file stands where a folder should be: move it, or use another store"
    else:
        advice = "check the path and that its disk is there, or use another store"
    reason = error.strerror or str(error)
    return StoreError(f"{doing} failed: {reason}", got=where, do=advice)
