"""Places: a bucket is as good as a folder; a full disk or a dead cluster ends clearly."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from raycl.errors import ClusterError, DiskFullError, StoppedError
from raycl.store.store import Store
from tests.conftest import BUCKET
from tests.engine.worlds import World, numbers


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KiB, mounted for one test."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_ends_the_run_and_more_room_continues_it(
    tmp_path: Path, small_disk: Path
) -> None:
    world = World(tmp_path, train=400)
    whole = world.run("joint", "method.align.epochs=1", store=str(tmp_path / "whole"))
    with pytest.raises(DiskFullError) as caught:
        world.run("joint", "method.align.epochs=1", store=str(small_disk))
    assert caught.value.exit_code == 1 and "free some space" in str(caught.value)
    kept = list(Store.open(str(small_disk)).records("state"))
    assert kept, "the first task fits and is kept"
    grow = ["mount", "-o", "remount,size=20m", str(small_disk)]
    subprocess.run(grow, check=True)
    assert list(Store.open(str(small_disk)).verify()) == []
    continued = world.run("joint", "method.align.epochs=1", store=str(small_disk))
    assert continued.computed["state"] == 3 - len(kept)
    assert numbers(continued) == numbers(whole)


def test_an_address_where_nothing_answers_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"nothing answers at 127\.0\.0\.1:9") as caught:
        World(tmp_path).run("ncm", pool="ray", address="127.0.0.1:9")
    assert caught.value.exit_code == 2 and "leave it out" in str(caught.value)


def test_a_bucket_gives_the_numbers_of_a_folder(tmp_path: Path, s3_address: str) -> None:
    world = World(tmp_path)
    bucket = f"s3://{BUCKET}/{tmp_path.name}?endpoint_override={s3_address}&scheme=http"
    with pytest.raises(StoppedError):
        world.run("finetune", store=bucket, stop_after=1)
    there, here = world.run("finetune", store=bucket), world.run("finetune")
    assert there.computed["state"] == 2
    assert numbers(there) == numbers(here)
    assert world.run("finetune", store=bucket).computed == {}
    logs = [file.path for file in Store.open(bucket).location.files("logs")]
    assert len(logs) == 2, "an object store keeps the log of each run too"
