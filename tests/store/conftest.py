"""Stores to test: in a local folder, and in a bucket of an S3 server on loopback."""

from __future__ import annotations

import logging
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_processes import Start, begin

from raycl.store import Store

BUCKET = "raycl-tests"


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """host:port of an S3 server with one empty bucket; the environment holds its keys."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        _make_bucket(f"{host}:{port}")
        yield f"{host}:{port}"
        server.stop()


def _make_bucket(address: str) -> None:
    from pyarrow.fs import S3FileSystem

    s3 = S3FileSystem(endpoint_override=address, scheme="http", allow_bucket_creation=True)
    s3.create_dir(BUCKET)


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
