"""Runs of the command line in processes of their own, to be killed at will."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raycl.store.lease import claims
from raycl.store.location import open_location

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
        self.below: list[tuple[int, str]] = []
        """What it had started, by name, when it was last sent a signal."""

    def until(self, text: str) -> None:
        """Wait for a text on standard error."""
        self.until_seen(lambda: text in self.log.read_text(), repr(text))

    def until_seen(self, sight: Callable[[], object], what: str) -> None:
        """Wait until something is there while the process lives."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not sight():
            assert self.process.poll() is None, f"ended early:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"no {what}:\n{self.log.read_text()}"
            time.sleep(0.005)

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves no process behind when a test fails."""
        self.kill()
        if self.process.returncode is None:
            self.process.communicate(timeout=LIMIT_SECONDS)

    def includes(self, pid: int) -> bool:
        """Whether a process is this one, or was started by it."""
        return pid in (self.process.pid, *(below for below, _ in descendants(self.process.pid)))

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process, not to its group."""
        if self.process.poll() is None:
            self.below = descendants(self.process.pid)
            os.kill(self.process.pid, number)

    def end(self, seconds: float = LIMIT_SECONDS) -> tuple[int, str]:
        """Exit code and standard output."""
        out, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, out.decode()

    def result(self, seconds: float = LIMIT_SECONDS) -> dict[str, Any]:
        """The JSON object of a run that must have succeeded."""
        code, out = self.end(seconds)
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


def makers(store: Path, kind: str) -> dict[str, int]:
    """The artefacts of a kind that living processes are making now, and the process of each."""
    found = claims(open_location(str(store)), f"leases/{kind}")
    held = [c for _, _, c in found if c is not None and c.ticket is not None]
    records = store / "artefacts"
    return {
        claim.key: claim.process.pid
        for claim in held
        if claim.process.is_here() and not (records / claim.key / "record.json").exists()
    }


@dataclass(frozen=True)
class Caught:
    """A process that is stopped in the middle of making an artefact."""

    pid: int
    key: str

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@contextlib.contextmanager
def caught(
    store: Path, kind: str, wanted: Callable[[int], bool] = lambda pid: True
) -> Iterator[Caught]:
    """Whoever is found making such an artefact; it goes on afterwards unless it was killed.

    Looked at again once it is stopped: what is seen of a running process is over by then.
    """
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        for key, pid in makers(store, kind).items():
            if pid == os.getpid() or not wanted(pid) or not _freeze(pid):
                continue
            try:
                if makers(store, kind).get(key) == pid:
                    yield Caught(pid, key)
                    return
            finally:
                _signal(pid, signal.SIGCONT)
        assert time.monotonic() < deadline, f"nobody makes a {kind}"
        time.sleep(0.002)


def _freeze(pid: int) -> bool:
    """Whether the process is stopped now; the signal alone says only that it will be."""
    if not _signal(pid, signal.SIGSTOP):
        return False
    while (state := _state(pid)) not in ("T", "Z", "X", None):
        time.sleep(0.0005)
    return state == "T"


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _state(pid: int) -> str | None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return None


def gone(pid: int) -> bool:
    """Whether a process has ended, collected by its parent or not."""
    return _state(pid) in ("Z", "X", None)


def logged(store: Path) -> list[dict[str, Any]]:
    """Every event of every run in a store, as the run's own log tells it."""
    logs = sorted((store / "logs").rglob("*.jsonl"), key=lambda log: log.stat().st_mtime_ns)
    # A line without its end is still being written.
    lines = [line for log in logs for line in log.read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]
