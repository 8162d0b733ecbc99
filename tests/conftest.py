"""The one Ray of a test session, started by the first test that asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from raycl.compute.ray_session import Session

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
