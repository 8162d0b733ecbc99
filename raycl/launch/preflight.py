"""What would fail on a cluster, found out before a command is sent.

A small job is sent first, which asks every node (see `raycl.engine.nodes`); then versions,
mounts, the store and the shares that workers ask for are compared with what is there.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raycl import __version__
from raycl.config.clusters import KubeRayProfile, Profile, SlurmProfile
from raycl.config.execution import Execution
from raycl.engine.nodes import NodeReport, from_rows
from raycl.errors import ClusterError, RayclError
from raycl.launch.command import Command
from raycl.launch.jobs import Job
from raycl.launch.plan import Plan
from raycl.launch.reach import data_of, store_of
from raycl.launch.render import jobs_of, render
from raycl.launch.runner import Processes, Runner

LONGEST_SECONDS = 240.0
POLL_SECONDS = 0.5
ASKS_NODES = ("doctor", "--nodes", "--json", "--address", "auto")
"""What the small job runs."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    do: str = ""


def preflight(command: Command, profile: Profile, tell: Callable[[str], None]) -> None:
    """A `ClusterError` if something would fail; what is only worth knowing is told."""
    reads = tuple(data_of(command, profile))
    for finding in findings(profile, store_of(command, profile), reads):
        if not finding.ok:
            raise ClusterError(
                f"{finding.name}: {finding.found}",
                do=finding.do or "`--no-check` sends it all the same",
            )
        if finding.do:
            tell(f"{finding.name}: {finding.found}; {finding.do}")


def findings(
    profile: Profile, store: str, reads: Sequence[str] = (), run: Runner | None = None
) -> list[Finding]:
    """Everything that can be known about a profile without sending a command; `reads` are
    paths that each node must have."""
    match profile:
        case KubeRayProfile(mode="job"):
            return _programs_answer(run, _kubernetes(profile))
        case SlurmProfile():
            return _programs_answer(run, [["sinfo", "--noheader", "--format", "%P %D %T"]])
        case _:
            return _of_jobs(profile, store, reads)


def _kubernetes(profile: KubeRayProfile) -> list[list[str]]:
    from raycl.launch.kuberay import kubectl

    base = [*kubectl(profile)]
    kept = [
        [*base, "get", "secret", secret.kubernetes.partition("/")[0], "--output", "name"]
        for secret in profile.secrets.values()
        if secret.kubernetes
    ]
    claims = [
        [*base, "get", "persistentvolumeclaim", mount.claim, "--output", "name"]
        for mount in profile.mounts
        if mount.claim
    ]
    return [[*base, "auth", "can-i", "create", "rayjobs.ray.io"], *claims, *kept]


def _programs_answer(run: Runner | None, programs: list[list[str]]) -> list[Finding]:
    run = run or Processes()
    out = []
    for argv in programs:
        shown = " ".join(argv)
        try:
            said = run(argv).strip().splitlines() or ["nothing"]
            out.append(Finding(argv[0], True, f"{shown}: {said[0]}"))
        except RayclError as error:
            out.append(Finding(argv[0], False, error.what, error.do or ""))
    return out


def _of_jobs(profile: Profile, store: str, reads: Sequence[str]) -> list[Finding]:
    from raycl.launch.ray_jobs import RayJobs

    ray_profile = jobs_of(profile)  # type: ignore[arg-type]
    try:
        sender = RayJobs(ray_profile)
        version = sender.ray_version()
    except RayclError as error:
        return [Finding("Jobs API", False, f"{error}", error.do or "")]
    reached = Finding("Jobs API", True, f"{ray_profile.address}, Ray {version}")
    try:
        reports = _ask_nodes(sender, profile, store, reads)
    except RayclError as error:
        return [reached, Finding("nodes", False, error.what, error.do or "")]
    return [reached, *_of_nodes(reports, version), *_shares(reports, profile.execution)]


def _ask_nodes(
    sender: object, profile: Profile, store: str, reads: Sequence[str]
) -> list[NodeReport]:
    from raycl.launch.ray_jobs import RayJobs

    assert isinstance(sender, RayJobs)
    places = dict.fromkeys([*(mount.path for mount in profile.mounts), *reads])
    mounts = [part for place in places for part in ("--mount", place)]
    plan = render(Command((*ASKS_NODES, *mounts), asked={"execution": {"store": store}}), profile)
    # Not under a name of ours: this is no attempt at a command.
    id = f"probe-{secrets.token_hex(6)}"
    sender.send(Plan(id, 0, plan.files, (), plan.runtime_env, plan.entrypoint))
    job = _waited(sender, f"{id}-0")
    text = "".join(sender.log(job.id, follow=False))
    with contextlib.suppress(RayclError):
        sender.delete(job.id)
    rows = [line for line in text.splitlines() if line.startswith('{"nodes"')]
    if not rows:
        last = (text.strip().splitlines() or [job.detail])[-1]
        raise ClusterError(
            f"raycl does not run there: {last}",
            do="set python in the profile to an interpreter that has raycl, or ship: true",
        )
    return from_rows(json.loads(rows[-1])["nodes"])


def _waited(sender: object, id: str) -> Job:
    from raycl.launch.ray_jobs import RayJobs

    assert isinstance(sender, RayJobs)
    until = time.monotonic() + LONGEST_SECONDS
    while (job := sender.info(id)).live:
        if time.monotonic() > until:
            with contextlib.suppress(RayclError):
                sender.stop(id)
            raise ClusterError(
                "the cluster did not run a small job in time", got=f"{LONGEST_SECONDS:.0f} s"
            )
        time.sleep(POLL_SECONDS)
    return job


def _of_nodes(reports: list[NodeReport], version: str) -> list[Finding]:
    problems = [f"{report.node} {problem}" for report in reports for problem in report.problems]
    own = {report.raycl for report in reports if report.raycl[:1].isdigit()}
    out = [
        Finding(
            "nodes", not problems,
            "; ".join(problems[:3]) or f"{len(reports)}: store, mounts and data are there",
            "name a store and data that every node sees" if problems else "",
        ),
    ]  # fmt: skip
    pythons = {report.python for report in reports if report.python}
    rays = {report.ray for report in reports if report.ray}
    same = len(pythons) <= 1 and rays <= {version}
    found = f"Python {', '.join(sorted(pythons))}, Ray {', '.join(sorted(rays))}"
    out.append(Finding("versions", same, found, "" if same else "use one image for all nodes"))
    if own - {__version__}:
        found = f"raycl {', '.join(sorted(own))} there, {__version__} here"
        out.append(Finding("raycl", True, found, "keys may differ between versions"))
    return out


def _shares(reports: list[NodeReport], execution: Execution) -> list[Finding]:
    """Whether the nodes can hold the learner and the workers."""
    worker, learner, workers = execution.worker, execution.learner, execution.workers
    cpus = sum(report.cpus for report in reports)
    gpus = sum(report.gpus for report in reports)
    asked = (workers * worker.cpus + learner.cpus, workers * worker.gpus + learner.gpus)
    found = f"{asked[0]:g} CPUs and {asked[1]:g} GPUs asked, {cpus:g} and {gpus:g} there"
    holds = all(
        any(r.cpus >= share.cpus and r.gpus >= share.gpus for r in reports)
        for share in (worker, learner)
    )
    if holds and asked[0] <= cpus and asked[1] <= gpus:
        return [Finding("resources", True, found)]
    if any(report.grows for report in reports):
        return [Finding("resources", True, found, "the autoscaler has to bring more nodes")]
    return [Finding("resources", False, found, "ask for fewer or smaller workers, or add nodes")]
