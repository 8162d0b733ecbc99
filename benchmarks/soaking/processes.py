"""The processes of a soak: commands that may be killed, the bed of nodes, and what is left over.

Guarantees: whatever a soak starts stays below it, orphans included, because it adopts them
(Linux); so at the end nothing of it lives on unnoticed, and nothing else is ever signalled.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.engine.processes import descendants, gone

ROOT = Path(__file__).resolve().parents[2]
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER
_END_SECONDS = 90.0


def environment(folder: Path) -> dict[str, str]:
    """For all of a soak: a home and temporary folders of its own, and no other Ray."""
    own = {"HOME": "home", "TMPDIR": "tmp", "RAY_TMPDIR": "ray"}
    for name in own.values():
        (folder / name).mkdir(exist_ok=True)
    paths = f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "RAYCL_"))}
    places = {name: str(folder / value) for name, value in own.items()}
    fixed = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    return {**clean, **places, **fixed}


class Command:
    """A command in a process of its own, whose output goes to files."""

    def __init__(self, words: list[str], folder: Path, env: Mapping[str, str]) -> None:
        stem = folder / "tmp" / f"command-{time.monotonic_ns()}"
        self._out, self._err = stem.with_suffix(".out"), stem.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env=dict(env),
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.process.poll()

    def signal(self, number: int) -> None:
        if self.code is None:
            os.kill(self.pid, number)

    def result(self) -> dict[str, Any]:
        """The JSON object that it printed last."""
        value: dict[str, Any] = json.loads(self._out.read_text().strip().splitlines()[-1])
        return value

    def last_words(self, lines: int = 12) -> str:
        return "\n".join(self._err.read_text(errors="replace").strip().splitlines()[-lines:])


class BedError(RuntimeError):
    """The bed could not do as it was told."""


class Bed:
    """The cluster's process, asked over a pipe."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        with (folder / "tmp" / f"bed-{time.monotonic_ns()}.err").open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "soaking.bed"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                cwd=folder,
                env=dict(env),
                start_new_session=True,
                text=True,
            )
        self.address = str(self.ask("address"))

    def ask(self, do: str, **asked: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"do": do, **asked}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        told = json.loads(line) if line else {"error": "it died"}
        if "error" in told:
            raise BedError(f"{do}: {told['error']}")
        return told["answer"]

    def pids(self) -> list[int]:
        """All of the cluster: the bed's own process last, which started the others."""
        return [*(pid for pid, _ in descendants(self._process.pid)), self._process.pid]

    def kill(self) -> None:
        """All of it at once, as if the power went."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()


def adopt_orphans() -> None:
    """From now on, what loses its parent below us becomes our child."""
    if ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0) != 0:
        raise OSError("the soak needs Linux: it could not adopt orphans")


def leftovers(known: set[int], seconds: float = _END_SECONDS) -> list[tuple[int, str]]:
    """What still lives below us after a while, but for the processes that are known."""
    deadline = time.monotonic() + seconds
    while (left := list(_living(known))) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


def end_all(left: list[tuple[int, str]]) -> None:
    for pid, _ in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _living(known: set[int]) -> Iterator[tuple[int, str]]:
    for pid, name in descendants(os.getpid()):
        if pid in known:
            continue
        if gone(pid):
            # Adopted and dead: nobody else can collect it.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        else:
            yield pid, name
