"""Programs of others, such as kubectl and sbatch: run, with their words kept.

Guarantees: no shell reads an argument; a program that is not there, or fails, is a
`ClusterError` with its own last words. Tests put a function of their own in its place.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from raycl.errors import ClusterError

SECONDS = 60.0


class Runner(Protocol):
    """Runs a program and gives what it printed."""

    def __call__(self, argv: Sequence[str], folder: Path | None = None) -> str: ...

    def lines(self, argv: Sequence[str]) -> Iterator[str]:
        """Its output while it runs."""


class Processes:
    """The runner that starts processes."""

    def __call__(self, argv: Sequence[str], folder: Path | None = None) -> str:
        try:
            done = subprocess.run(
                argv, cwd=folder, capture_output=True, text=True, timeout=SECONDS,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise _absent(argv[0]) from error
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{argv[0]} did not answer within {SECONDS:.0f} s") from error
        if done.returncode:
            raise _refused(argv, done.stderr or done.stdout, done.returncode)
        return done.stdout

    def lines(self, argv: Sequence[str]) -> Iterator[str]:
        try:
            process = subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except FileNotFoundError as error:
            raise _absent(argv[0]) from error
        with process:
            assert process.stdout is not None and process.stderr is not None
            try:
                yield from process.stdout
            finally:
                process.terminate()
            said = process.stderr.read()
        if process.returncode > 0:
            raise _refused(argv, said, process.returncode)


class ProgramError(ClusterError):
    """A program of others said no."""


def _refused(argv: Sequence[str], said: str, code: int) -> ProgramError:
    lines = said.strip().splitlines()
    last = lines[-1] if lines else f"exit code {code}"
    return ProgramError(f"{argv[0]} failed: {last}", do=f"try it yourself: {shlex.join(argv)}")


def _absent(program: str) -> ClusterError:
    return ClusterError(
        f"{program} is not on this machine",
        do=f"install it, or run raycl where {program} is (a login node, a machine with access)",
    )
