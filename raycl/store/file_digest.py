"""Digests of data and weight files, remembered by path, size and time of change.

Guarantees the SHA-256 of what is in the file now, as far as size and mtime tell; a file
changed within the last seconds is never remembered, because its mtime cannot tell yet.
The cache is one small file per path; where it cannot be written it is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from pathlib import Path

from raycl.config.places import at_home
from raycl.errors import DataError

_SETTLED_NS = 2_000_000_000


def file_digest(path: Path | str) -> str:
    """The SHA-256 of a file, in hex."""
    file = at_home(path).resolve()
    try:
        before = _stamp(file)
        known = _recall(file, before)
        if known is not None:
            return known
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        settled = time.time_ns() - before["mtime_ns"] > _SETTLED_NS
        if settled and _stamp(file) == before:
            _remember(file, before, found)
        return found
    except OSError as error:
        raise DataError(
            f"a file cannot be read: {error.strerror}", got=str(file), do="check the path"
        ) from error


def _stamp(file: Path) -> dict[str, int]:
    stat = file.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _entry(file: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    name = hashlib.sha256(os.fsencode(file)).hexdigest()[:32]
    return cache / "raycl" / "digests" / f"{name}.json"


def _recall(file: Path, stamp: dict[str, int]) -> str | None:
    try:
        entry = json.loads(_entry(file).read_bytes())
        if entry["path"] == str(file) and entry["stamp"] == stamp:
            return str(entry["sha256"])
    except (OSError, ValueError, TypeError, KeyError, RuntimeError):
        pass
    return None


def _remember(file: Path, stamp: dict[str, int], sha256: str) -> None:
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        entry = _entry(file)
        entry.parent.mkdir(parents=True, exist_ok=True)
        aside = entry.with_suffix(f".{secrets.token_hex(4)}.tmp")
        aside.write_text(json.dumps({"path": str(file), "stamp": stamp, "sha256": sha256}))
        aside.replace(entry)
