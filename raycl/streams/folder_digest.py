"""What a folder of images *is*: one digest over the path and the bytes of each image.

Guarantees what `file_digest` does for one file, for tens of thousands at a time: the
digests of the whole folder are remembered in one file, by size and time of change, and
a file changed within the last seconds is never remembered. Where that file cannot be
written or read, everything is digested again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raycl.config.spec import digest
from raycl.errors import DataError
from raycl.whole_files import whole_file

_SETTLED_NS = 2_000_000_000
_READERS = 8
"""Files read at once; what waits is the disk."""

_Entry = tuple[int, int, str]
"""Size, time of change in nanoseconds, SHA-256."""

_NONE: _Entry = (-1, -1, "")


def folder_digest(root: Path, relative: Sequence[str]) -> str:
    """The digest of these files under `root`; where the folder lies is not part of it."""
    root = root.resolve()
    known = _recall(root)
    try:
        stamps = {name: _stamp(root, name) for name in relative}
        changed = [name for name in relative if known.get(name, _NONE)[:2] != stamps[name]]
        with ThreadPoolExecutor(_READERS) as readers:
            read = dict(zip(changed, readers.map(lambda n: _read(root, n), changed), strict=True))
        settled = {n for n in changed if _is_settled(stamps[n]) and _stamp(root, n) == stamps[n]}
    except OSError as error:
        raise DataError(
            f"a file cannot be read: {error.strerror}", got=str(error.filename), do="check it"
        ) from error
    found = {name: read.get(name) or known[name][2] for name in relative}
    _remember(
        root,
        known,
        {n: (*stamps[n], found[n]) for n in relative if n not in read or n in settled},
    )
    return digest([[_spelt(name), found[name]] for name in sorted(found)])


def _read(root: Path, name: str) -> str:
    with (root / name).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stamp(root: Path, name: str) -> tuple[int, int]:
    stat = os.stat(f"{root}/{name}")  # noqa: PTH116 - ten thousand Path objects are slow
    return stat.st_size, stat.st_mtime_ns


def _is_settled(stamp: tuple[int, int]) -> bool:
    return time.time_ns() - stamp[1] > _SETTLED_NS


def _spelt(name: str) -> str:
    """A path as text that is the same on every system, also where it is no UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _place(root: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
    return cache / "raycl" / "folders" / f"{name}.json"


def _recall(root: Path) -> dict[str, _Entry]:
    try:
        kept = json.loads(_place(root).read_bytes())
        if kept["path"] != str(root):
            return {}
        return {
            str(name): (int(size), int(mtime), str(sha256))
            for name, (size, mtime, sha256) in kept["files"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        return {}


def _remember(root: Path, known: Mapping[str, _Entry], settled: Mapping[str, _Entry]) -> None:
    if settled == known:
        return
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        place = _place(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(place) as aside:
            aside.write_text(json.dumps({"path": str(root), "files": settled}))
