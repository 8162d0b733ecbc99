"""Files appear whole or not at all: written beside their place, then moved there in one step.

Guarantees that a reader never sees half a file, and that a failure leaves what was there before
and nothing else. Makes no folder and words no error. Standard library only.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside the path to write to, which becomes the file at the end."""
    aside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
