"""What tests of several rooms share: one Ray and one S3 server, each started on demand."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from raycl.compute.ray_session import Session

BUCKET = "raycl-tests"

# Real data, where it lies beside the checkout; tests that need it skip elsewhere.
_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
if _DATA.is_dir():
    os.environ.setdefault("RAYCL_DATA", str(_DATA))

# Ray reads it at import; its own processes and those of the tests inherit it.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A local Ray with two CPUs. No test shuts it down."""
    from raycl.compute.ray_session import connect

    home: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        with connect(num_cpus=2, object_store_mib=200) as session:
            yield session


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
