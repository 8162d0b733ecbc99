"""Sending a command, once: the job that lives is given back, one that ended is tried anew."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raycl.config.clusters import (
    KubeRayProfile,
    LauncherProfile,
    LocalProfile,
    Profile,
    RayProfile,
    SlurmProfile,
)
from raycl.errors import ClusterError, ConfigError, RayclError
from raycl.launch.command import Command
from raycl.launch.doing import seen
from raycl.launch.jobs import AlreadySent, Job, Sender, attempts_of
from raycl.launch.kubectl import KubeRayJobs
from raycl.launch.plan import name_of
from raycl.launch.render import jobs_of, render
from raycl.launch.runner import Processes, Runner
from raycl.launch.slurm_jobs import SlurmJobs
from raycl.redaction import redacted_lines

RACES = 5
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sent:
    """What became of a command: a job, or the exit code where it ran here."""

    job: Job | None
    new: bool
    code: int = 0

    def as_json(self) -> dict[str, Any]:
        return {"job": self.job.as_json() if self.job else None, "new": self.new, "code": self.code}


def sender_of(profile: Profile, run: Runner | None = None) -> Sender:
    """Who takes jobs for a profile."""
    match profile:
        case LocalProfile():
            raise ConfigError(
                "this profile is this machine: there are no jobs elsewhere",
                do="name a profile with a cluster: --cluster ray, kuberay, slurm, or a file",
            )
        case KubeRayProfile(mode="job"):
            return KubeRayJobs(profile, run or Processes())
        case SlurmProfile():
            return SlurmJobs(profile, run or Processes())
        case RayProfile() | KubeRayProfile() | LauncherProfile():
            from raycl.launch.ray_jobs import RayJobs

            return RayJobs(jobs_of(profile))


def send(
    command: Command,
    profile: Profile,
    *,
    check: bool = True,
    tell: Tell = lambda line: None,
    run: Runner | None = None,
) -> Sent:
    """Sends a command unless it is on its way; on this machine it runs to its end."""
    plan = render(command, profile)
    if isinstance(profile, LocalProfile):
        return Sent(None, True, subprocess.run(plan.argv).returncode)
    sender = sender_of(profile, run)
    name = name_of(command, profile)
    checked = not check
    for _ in range(RACES):
        attempts = attempts_of(name, sender.jobs())
        last = max(attempts, default=0)
        if last and attempts[last].live:
            tell(f"{attempts[last].id} is on its way already")
            return Sent(attempts[last], new=False)
        if not checked:
            from raycl.launch.preflight import preflight

            preflight(command, profile, tell)
            checked = True
        plan = render(command, profile, last + 1)
        with contextlib.suppress(AlreadySent):
            sender.send(plan)
            return Sent(sender.job(plan.id), new=True)
    raise ClusterError("others keep sending the same command", got=name, do="try again")


def follow(id: str, profile: Profile, show: Tell, run: Runner | None = None) -> int:
    """Shows a job's log until it ends; its exit code is the answer."""
    sender = sender_of(profile, run)
    job = sender.job(id)
    for text in redacted_lines(sender.log(job.id, follow=True)):
        show(text)
    return ended(job.id, profile, sender).exit_code


def ended(id: str, profile: Profile, sender: Sender, tell: Tell = lambda line: None) -> Job:
    """The job once it has ended; its log goes to the store, since heads do not stay."""
    import time

    job = sender.job(id)
    while job.live:
        time.sleep(1.0)
        job = sender.job(id)
    try:
        tell(f"its log is kept in the store: {archive(job.id, profile, sender)}")
    except RayclError as error:
        tell(f"its log is not kept: {error.what}")
    return job


def archive(id: str, profile: Profile, sender: Sender) -> str:
    """Writes the log of a job into the profile's store, without secrets; where it is."""
    text = "".join(redacted_lines(sender.log(id, follow=False)))
    path = f"logs/jobs/{id}.txt"
    seen(profile.execution.store).write(path, text.encode())
    return path
