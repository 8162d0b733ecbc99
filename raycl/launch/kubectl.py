"""RayJobs through kubectl: created, looked at, followed, deleted."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raycl.config.clusters import KubeRayProfile
from raycl.errors import ClusterError
from raycl.launch.jobs import AlreadySent, Job, State, is_ours, picked
from raycl.launch.kuberay import LABEL, created, kubectl
from raycl.launch.plan import Plan
from raycl.launch.runner import ProgramError, Runner

_STATES: dict[str, State] = {"SUCCEEDED": "done", "FAILED": "failed", "STOPPED": "stopped"}
_ENDED = {"Complete", "Failed"}


class KubeRayJobs:
    """The RayJobs of one namespace that raycl made."""

    def __init__(self, profile: KubeRayProfile, run: Runner) -> None:
        self._kubectl = kubectl(profile)
        self._run = run

    def jobs(self) -> list[Job]:
        answer = self._run(
            [*self._kubectl, "get", "rayjobs", "--selector", LABEL, "--output", "json"]
        )
        try:
            items = json.loads(answer)["items"]
            return [_job(item) for item in items if is_ours(item["metadata"]["name"])]
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError("kubectl answered something else than RayJobs") from error

    def job(self, id: str) -> Job:
        return picked(id, self.jobs())

    def send(self, plan: Plan) -> None:
        with tempfile.TemporaryDirectory(prefix="raycl-plan-") as folder:
            plan.write(Path(folder))
            try:
                answer = self._run(plan.argv, Path(folder))
            except ProgramError as error:
                if "AlreadyExists" in error.what or "already exists" in error.what:
                    raise AlreadySent(plan.id) from None
                raise
        self._own(plan.id, created(answer))

    def _own(self, id: str, uid: str) -> None:
        """Gives the ConfigMap to the job, which takes it along when it is deleted."""
        owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": id, "uid": uid}
        patch = json.dumps({"metadata": {"ownerReferences": [owner]}})
        self._run([*self._kubectl, "patch", "configmap", id, "--type", "merge", "--patch", patch])

    def log(self, id: str, *, follow: bool) -> Iterator[str]:
        flag = ("--follow",) if follow else ()
        # The pod that submitted the command prints what it prints.
        yield from self._run.lines([*self._kubectl, "logs", *flag, f"job/{id}"])

    def stop(self, id: str) -> None:
        self._run([*self._kubectl, "delete", "rayjob", id, "--wait=false"])


def _job(item: dict[str, Any]) -> Job:
    status = item.get("status") or {}
    deployment = str(status.get("jobDeploymentStatus", ""))
    said = str(status.get("jobStatus", ""))
    if deployment in _ENDED:
        state: State = _STATES.get(said, "done" if deployment == "Complete" else "failed")
    elif deployment == "Retrying":
        state = "running"  # in a new cluster, from the store
    else:
        state = "running" if said == "RUNNING" else "waiting"
    return Job(
        id=str(item["metadata"]["name"]),
        state=state,
        detail=str(status.get("message") or status.get("reason") or deployment),
        code={"done": 0, "failed": 1}.get(state),
        started=str(status.get("startTime") or ""),
    )
