"""Files appear whole or not at all, and what cannot be written is said in words."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from raycl.errors import ConfigError


def write_whole(path: Path, data: bytes) -> None:
    """The bytes as a file."""
    with written_whole(path) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A neighbour to write to, which becomes the file at the end, so that a reader never
    sees half of it and a failure leaves what was there."""
    with report_unwritable(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        os.close(handle)
        part = Path(name)
        try:
            yield part
            part.chmod(0o666 & ~_umask())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def report_unwritable(path: Path) -> Iterator[None]:
    """Turn a failure of the file system into a message that names the file."""
    try:
        yield
    except OSError as error:
        do = error.strerror or str(error)
        raise ConfigError("this cannot be written", got=str(path), do=do) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
