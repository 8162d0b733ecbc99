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


def pytest_configure(config: pytest.Config) -> None:
    """Lets child processes keep bytecode where this process was told to keep none.

    Each Ray worker would else compile Ray anew, and take longer for it than for its test.
    """
    if config.cache is not None and os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        os.environ["PYTHONPYCACHEPREFIX"] = str(config.cache.mkdir("bytecode"))


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A local Ray with two CPUs. No test shuts it down."""
    from raycl.compute.ray_session import connect

    home: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        with connect(num_cpus=2, object_store_mib=200) as session:
            yield session
