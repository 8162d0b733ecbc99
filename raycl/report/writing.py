"""Files appear whole or not at all, and what cannot be written is said in words."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from raycl.errors import ConfigError
from raycl.whole_files import whole_file


def write_whole(path: Path, data: bytes) -> None:
    """The bytes as a file."""
    with written_whole(path) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A neighbour to write to, which becomes the file at the end."""
    with report_unwritable(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with whole_file(path) as part:
            yield part


@contextlib.contextmanager
def report_unwritable(path: Path) -> Iterator[None]:
    """Turn a failure of the file system into a message that names the file."""
    try:
        yield
    except OSError as error:
        do = error.strerror or str(error)
        raise ConfigError("this cannot be written", got=str(path), do=do) from error
