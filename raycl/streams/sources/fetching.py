"""Fetches the files of a data set that may be fetched, and puts them where they belong.

Guarantees: nothing is fetched that was not asked for; an interrupted download goes on where it
stopped; a file whose checksum is known is never used with another; an archive cannot write
outside of the folder that it is unpacked in; a data set's folder gets whole files and folders
only, each moved there in one step. An archive placed by hand is used as if fetched.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from raycl.config.sources.entry import Download, Entry
from raycl.errors import DataError
from raycl.observe.events import BEFORE_TASKS, Observer, Progress, nobody

DOWNLOADS = "downloads"
"""Where archives lie, below the root of data sets."""
_BLOCK = 1 << 20
_TIMEOUT = 30.0


def fetch(entry: Entry, base: Path, observer: Observer = nobody, *, keep: bool = False) -> Path:
    """Fetch and unpack all of a data set that can be; its folder."""
    place = base / entry.folders[0]
    archives = base / DOWNLOADS / entry.name
    archives.mkdir(parents=True, exist_ok=True)
    with _alone(archives / ".lock", entry):
        for download in entry.downloads:
            _bring(download, archives / download.file, observer)
        staging = archives / "unpacked"
        shutil.rmtree(staging, ignore_errors=True)
        for download in entry.downloads:
            _lay_out(download, archives / download.file, staging, place)
        shutil.rmtree(staging, ignore_errors=True)
        if not keep:
            for download in entry.downloads:
                (archives / download.file).unlink(missing_ok=True)
    if not keep:
        shutil.rmtree(archives, ignore_errors=True)
    return place


@contextlib.contextmanager
def _alone(lock: Path, entry: Entry) -> Iterator[None]:
    """No second process fetches the same data set meanwhile."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(
                f"another process is fetching {entry.title}", got=str(lock), do="wait for it"
            ) from error
        yield


def _bring(download: Download, target: Path, observer: Observer) -> None:
    """The file whole, fetched or found."""
    if target.is_file():
        _check(target, download)
        return
    part = target.with_name(f"{target.name}.part")
    try:
        _continue(download, part, observer)
    except (urllib.error.URLError, OSError, ValueError) as error:
        answered = isinstance(error, urllib.error.HTTPError)
        reason = error if answered else getattr(error, "reason", None) or error
        raise DataError(
            f"{download.url} cannot be fetched: {reason}",
            got=f"{part.stat().st_size if part.exists() else 0} bytes so far, in {part}",
            do=f"run the same command again to go on, or place the file at {target}",
        ) from error
    _check(part, download)
    os.replace(part, target)  # noqa: PTH105


def _continue(download: Download, part: Path, observer: Observer) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(download.url, headers={"User-Agent": "raycl"})
    if not request.full_url.startswith(("http://", "https://")):
        raise ValueError("only http and https are fetched")
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing is left to fetch
            return
        raise
    with answer:
        if have and answer.status != 206:  # the server begins again
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else 0
        with part.open("ab" if have else "wb") as file:
            have = _copy(answer, file, have, total, download, observer)
    if total and have != total:
        raise OSError(f"the connection broke after {have} of {total} bytes")


def _copy(
    answer: IO[bytes], file: IO[bytes], have: int, total: int, download: Download, tell: Observer
) -> int:
    while block := answer.read(_BLOCK):
        file.write(block)
        have += len(block)
        tell(
            Progress(
                BEFORE_TASKS, f"fetch {download.file}", have >> 20, max(total, have) >> 20, "MiB"
            )
        )
    return have


def _check(file: Path, download: Download) -> None:
    """A DataError where the checksum is known and another: the file is then of no use."""
    if download.md5 is None:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != download.md5:
        if file.suffix == ".part":
            file.unlink()
        raise DataError(
            f"{download.file} is not what its authors published",
            got=f"MD5 {found}, and {download.md5} is expected, of {file}",
            do="fetch it again",
        )


def _lay_out(download: Download, file: Path, staging: Path, place: Path) -> None:
    """An archive's contents, or the file itself, in the data set's folder."""
    place.mkdir(parents=True, exist_ok=True)
    if not download.unpack:
        if not (place / download.file).exists():
            aside = place / f".{download.file}.part"
            shutil.copyfile(file, aside)
            os.replace(aside, place / download.file)  # noqa: PTH105
        return
    own = staging / Path(download.file).stem
    unpack(file, own)
    top = own / download.top
    if not top.is_dir():
        raise DataError(
            f"{download.file} holds no {download.top}", got=str(file), do="fetch it again"
        )
    for inner in download.inner:
        unpack(top / inner, top)
        (top / inner).unlink()
    for item in sorted(top.iterdir()):
        if not (place / item.name).exists():
            item.replace(place / item.name)


def unpack(archive: Path, into: Path) -> None:
    """An archive's files, none of them outside of the folder; a DataError for any that would be."""
    into.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, into)
            return
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")
    except tarfile.FilterError as error:
        raise _climbs(archive, str(error)) from error
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise DataError(
            f"{archive.name} cannot be unpacked: {error}",
            got=str(archive),
            do="remove it and fetch it again; see that the disk has room",
        ) from error


def _unzip(archive: Path, into: Path) -> None:
    root = into.resolve()
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            if not (root / name).resolve().is_relative_to(root):
                raise _climbs(archive, name)
        packed.extractall(into)


def _climbs(archive: Path, what: str) -> DataError:
    return DataError(
        f"{archive.name} would write outside of its folder, and is not unpacked",
        got=what,
        do="take it from another place",
    )
