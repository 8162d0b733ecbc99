"""Digests of data files, and their cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raycl.errors import DataError
from raycl.store import file_digest

LONG_AGO = 1_700_000_000_000_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def write(path: Path, text: str, when: int = LONG_AGO) -> str:
    path.write_text(text)
    os.utime(path, ns=(when, when))
    return hashlib.sha256(text.encode()).hexdigest()


def cached(cache: Path) -> int:
    return sum(path.is_file() for path in cache.rglob("*"))


def test_a_digest_is_remembered_by_path_size_and_time(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "data.bin"
    first = write(file, "one")
    assert file_digest(file) == file_digest(str(file)) == first
    assert cached(cache) == 1
    write(file, "two")
    assert file_digest(file) == first, "same size and time: the file is not read again"
    second = write(file, "two", LONG_AGO + 1)
    assert file_digest(file) == second
    assert file_digest(file) == second
    longer = write(file, "three")
    assert file_digest(file) == longer
    assert cached(cache) == 1


def test_a_file_that_just_changed_is_not_remembered(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "data.bin"
    file.write_text("one")
    assert file_digest(file) == hashlib.sha256(b"one").hexdigest()
    assert cached(cache) == 0


@pytest.mark.parametrize("damage", ["", "[]", '{"path": 1}', "\x00"])
def test_a_damaged_cache_is_written_again(tmp_path: Path, cache: Path, damage: str) -> None:
    file = tmp_path / "data.bin"
    digest = write(file, "one")
    file_digest(file)
    (entry,) = (path for path in cache.rglob("*") if path.is_file())
    entry.write_text(damage)
    assert file_digest(file) == digest
    assert len(entry.read_text()) > 64


@pytest.mark.parametrize("where", ["/proc/nowhere", "file/below"])
def test_a_cache_that_cannot_be_written_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    write(tmp_path / "file", "in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / where))
    assert file_digest(tmp_path / "file") == hashlib.sha256(b"in the way").hexdigest()


def test_several_processes_may_remember_at_once(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "data.bin"
    digest = write(file, "one" * 100_000)
    code = "import sys; from raycl.store import file_digest; print(file_digest(sys.argv[1]))"
    crowd = [
        subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate()[0].strip() for process in crowd] == [digest] * 3
    assert cached(cache) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.bin", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            file_digest(path)
