"""A store in a local (or network) folder, by plain system calls.

Guarantees atomic writes by renaming within a folder. Does not call fsync: a killed
process loses nothing; a power cut may lose the last artefacts, and their checksums tell.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from raycl.errors import StoreError
from raycl.store.location import TEMPORARY, Location, StoredFile, explain

_WRITE_ATTEMPTS = 50


class LocalFolder(Location):
    """Named bytes below one folder, which is created if need be."""

    def __init__(self, root: Path) -> None:
        self.local_root: Path = Path(os.path.abspath(root))  # noqa: PTH100 - keeps symlinks
        self.uri = str(self.local_root)
        try:
            self.local_root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, "creating the store", self.uri) from error
        if not os.access(self.local_root, os.W_OK | os.X_OK):
            raise StoreError(
                "the store's folder is not writable",
                got=self.uri,
                do="make it writable for this user, or use another store",
            )

    def _at(self, path: str) -> str:
        return f"{self.uri}/{path}"

    def read(self, path: str) -> bytes | None:
        try:
            with open(self._at(path), "rb") as file:  # noqa: PTH123 - Path costs on a hot path
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explain(error, "reading the store", self._at(path)) from error

    def view(self, path: str) -> bytes | memoryview | None:
        """The file mapped into memory: pages are read when they are looked at."""
        try:
            with open(self._at(path), "rb") as file:  # noqa: PTH123
                if os.fstat(file.fileno()).st_size == 0:  # which cannot be mapped
                    return b""
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explain(error, "reading the store", self._at(path)) from error

    def write(self, path: str, data: bytes | memoryview) -> None:
        target = self._at(path)
        folder, name = os.path.split(target)
        temporary = f"{folder}/.{name}.{secrets.token_hex(4)}{TEMPORARY}"
        try:
            self._write_aside(folder, temporary, data)
            os.replace(temporary, target)  # noqa: PTH105
        except OSError as error:
            _remove_quietly(temporary)
            raise explain(error, "writing to the store", target) from error
        except BaseException:
            _remove_quietly(temporary)
            raise

    def _write_aside(self, folder: str, temporary: str, data: bytes | memoryview) -> None:
        for attempt in range(_WRITE_ATTEMPTS):
            try:
                with open(temporary, "xb") as file:  # noqa: PTH123
                    file.write(data)
                return
            except FileNotFoundError:
                if attempt == _WRITE_ATTEMPTS - 1:
                    raise
            # The folder is new, or a garbage collector tidied it away, or does so now.
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                os.makedirs(folder, exist_ok=True)  # noqa: PTH103

    def delete(self, path: str) -> None:
        try:
            os.unlink(self._at(path))  # noqa: PTH108
        except FileNotFoundError:
            return
        except OSError as error:
            raise explain(error, "deleting from the store", self._at(path)) from error

    def tidy(self, under: str) -> None:
        for folder, _, _ in os.walk(self._at(under), topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106 - refuses a folder in use

    def size(self, path: str) -> int | None:
        try:
            return os.stat(self._at(path)).st_size  # noqa: PTH116
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explain(error, "reading the store", self._at(path)) from error

    def files(self, under: str) -> Iterator[StoredFile]:
        try:
            with os.scandir(self._at(under)) as entries:
                found = list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise explain(error, "listing the store", self._at(under)) from error
        for entry in found:
            path = f"{under}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from self.files(path)
                continue
            with contextlib.suppress(FileNotFoundError):
                stat = entry.stat()
                yield StoredFile(path, stat.st_size, stat.st_mtime)


def _remove_quietly(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)  # noqa: PTH108
