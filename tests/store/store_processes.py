"""Worker processes for the tests of the store: started, spoken to, killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

WORKER = Path(__file__).with_name("store_worker.py")
LONG = 600.0
"""A time to live that no test waits for."""

Start = Callable[..., "subprocess.Popen[str]"]


def begin(command: str, uri: str, ttl: float = LONG) -> subprocess.Popen[str]:
    """A worker that runs one of the commands of `store_worker.py`."""
    return subprocess.Popen(
        [sys.executable, str(WORKER), command, uri, str(ttl), "dog"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    """The next line that a worker says; empty once it ended."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    """Lets a worker that waits in the middle of its work finish it."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def kill(process: subprocess.Popen[str], *, reap: bool = True) -> None:
    process.kill()
    if reap:
        process.communicate()
