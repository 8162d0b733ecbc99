"""Stores to test: in a local folder, and in a bucket of an S3 server on loopback."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_processes import Start, begin

from raycl.store import Store
from tests.conftest import BUCKET


@pytest.fixture(params=["local", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new, empty store of each kind."""
    if request.param == "local":
        return str(tmp_path / "store")
    address = request.getfixturevalue("s3_address")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}?endpoint_override={address}&scheme=http"


@pytest.fixture
def events() -> list[object]:
    """What the store told its observer."""
    return []


@pytest.fixture
def store(uri: str, events: list[object]) -> Store:
    return Store.open(uri, events.append)


@pytest.fixture
def local(tmp_path: Path, events: list[object]) -> Store:
    """A store in a local folder, for what does not depend on the place."""
    return Store.open(str(tmp_path / "store"), events.append)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts workers; the test's end kills what is left of them."""
    running: list[subprocess.Popen[str]] = []

    def one_more(command: str, uri: str, *ttl: float) -> subprocess.Popen[str]:
        running.append(begin(command, uri, *ttl))
        return running[-1]

    yield one_more
    for process in running:
        process.kill()
        process.communicate()
