"""Runs of the command line in processes of their own, to be killed at will."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 120.0


class Command:
    """`raycl …` in a new process, in a process group of its own."""

    def __init__(self, *args: str, folder: Path, **environment: str) -> None:
        self.log = folder / f"log-{time.monotonic_ns()}"
        with self.log.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "raycl", *args],
                stdout=subprocess.PIPE,
                stderr=err,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                start_new_session=True,
            )

    def until(self, text: str) -> None:
        """Wait for a text on standard error."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while text not in self.log.read_text():
            assert self.process.poll() is None, f"ended early:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.log.read_text()}"
            time.sleep(0.005)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process, not to its group."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Exit code and standard output."""
        out, _ = self.process.communicate(timeout=LIMIT_SECONDS)
        return self.process.returncode, out.decode()

    def result(self) -> dict[str, Any]:
        """The JSON object of a run that must have succeeded."""
        code, out = self.end()
        assert code == 0, self.log.read_text()
        values: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return values


def descendants(root: int) -> list[tuple[int, str]]:
    """Process ids below a process, with their names (Linux)."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            title = (folder / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(folder.name)
        parents[pid] = int(stat.rpartition(")")[2].split()[1])
        names[pid] = title.rsplit("/", 1)[-1]
    below, todo = [], [root]
    while todo:
        parent = todo.pop()
        children = [pid for pid, above in parents.items() if above == parent]
        below += [(pid, names[pid]) for pid in children]
        todo += children
    return below
