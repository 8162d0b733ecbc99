"""Slurm's jobs: a folder each on a mount, and squeue for those that live.

Guarantees: works without Slurm's accounting, since a job leaves its exit code in its folder;
making that folder is what decides which of two submitters sends.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from raycl.config.clusters import SlurmProfile
from raycl.errors import ClusterError, RayclError
from raycl.launch.jobs import AlreadySent, Job, State, is_ours, picked
from raycl.launch.plan import Plan
from raycl.launch.runner import Runner
from raycl.launch.slurm import ASKS, EXIT, LOG, STOP

NUMBER = "slurm-job"
POLL_SECONDS = 2.0
_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED"}
_UNSENT_SECONDS = 120.0
"""After which a folder without a number belongs to a submitter that died."""


class SlurmJobs:
    """The jobs in a profile's folder."""

    def __init__(self, profile: SlurmProfile, run: Runner) -> None:
        self._folder = Path(profile.folder)
        self._run = run

    def jobs(self) -> list[Job]:
        if not self._folder.is_dir():
            return []
        queue = self._queue()
        folders = sorted(f for f in self._folder.iterdir() if f.is_dir() and is_ours(f.name))
        return [_job(folder, queue) for folder in folders]

    def _queue(self) -> dict[str, tuple[str, str]]:
        """State and reason of every job of this user that Slurm still knows."""
        out = self._run(["squeue", "--me", "--noheader", "--format", "%i|%T|%R"])
        rows = (line.split("|", 2) for line in out.splitlines() if line.count("|") >= 2)
        return {number.strip(): (state.strip(), reason.strip()) for number, state, reason in rows}

    def job(self, id: str) -> Job:
        return picked(id, self.jobs())

    def send(self, plan: Plan) -> None:
        folder = self._folder / plan.id
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            raise AlreadySent(plan.id) from None
        except OSError as error:
            raise ClusterError(
                f"the folder of jobs cannot be written: {error.strerror}",
                got=str(self._folder),
                do="run this where the mount is: a login node of the cluster",
            ) from error
        try:
            plan.write(folder)
            number = self._run(plan.argv, folder).strip().partition(";")[0]
            (folder / NUMBER).write_text(number)
        except (RayclError, OSError):
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def log(self, id: str, *, follow: bool) -> Iterator[str]:
        file = self._folder / id / LOG
        at = 0
        while True:
            ended = not follow or not self.job(id).live
            if file.is_file():
                with file.open("rb") as stream:
                    stream.seek(at)
                    new = stream.read()
                at += len(new)
                if new:
                    yield new.decode("utf-8", "replace")
            if ended:
                return
            time.sleep(POLL_SECONDS)

    def stop(self, id: str) -> None:
        number = _read(self._folder / id / NUMBER)
        if number is None:
            raise ClusterError("Slurm gave this job no number", got=id)
        # The batch shell passes it on, so that the run saves; the rest ends with it.
        (self._folder / id / STOP).touch()
        self._run(["scancel", f"--signal={ASKS}", "--batch", number])


def _job(folder: Path, queue: dict[str, tuple[str, str]]) -> Job:
    number, code = _read(folder / NUMBER), _read(folder / EXIT)
    started = datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat("T", "seconds")
    if number is None:
        fresh = time.time() - folder.stat().st_mtime < _UNSENT_SECONDS
        detail = "being sent" if fresh else "its submitter died"
        return Job(folder.name, "waiting" if fresh else "failed", detail, started=started)
    if number in queue:
        slurm_state, reason = queue[number]
        state: State = "waiting" if slurm_state in _WAITING else "running"
        return Job(folder.name, state, f"{number} {slurm_state} {reason}".strip(), started=started)
    if code is None:
        detail = f"{number} left the queue without an exit code: cancelled, or its node died"
        return Job(folder.name, "stopped", detail, started=started)
    value = int(code) if code.isdecimal() else 1
    ended: State = "done" if value == 0 else "stopped" if value == 75 else "failed"
    return Job(folder.name, ended, number, value, started)


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip() or None
    except OSError:
        return None
