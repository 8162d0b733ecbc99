"""Ray's Jobs API: commands sent to a cluster that runs.

Guarantees: the token is found where Ray looks for it, or in the profile's file, and travels
in a header, never in an argument; an address where nothing answers, something else does, or
the token is refused is a `ClusterError` within seconds; of two that send the same attempt,
one is told that it was sent already.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import ray.job_submission as untyped_jobs
import requests
from ray.exceptions import AuthenticationError

from raycl.config.clusters import RayProfile
from raycl.config.places import at_home
from raycl.errors import ClusterError, ConfigError
from raycl.launch.jobs import AlreadySent, Job, State, is_ours, picked
from raycl.launch.plan import Plan
from raycl.launch.render import OWN_PACKAGE

PROBE_SECONDS = 3.0
LARGEST_PACKAGE = 50 * 2**20
_EXCLUDED = ["__pycache__", "*.pyc"]
_STATES: dict[str, State] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "FAILED": "failed",
    "STOPPED": "stopped",
}
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
NO_AGENT = "No available agent"
"""What a head says that answers before it can start a job."""
AGENT_SECONDS = 60.0
T = TypeVar("T")

jobs_api: Any = untyped_jobs


class RayJobs:
    """The jobs of one cluster."""

    def __init__(self, profile: RayProfile) -> None:
        self._address = profile.address
        token = find_token(profile)
        self._has_token = token is not None
        headers = {"Authorization": f"Bearer {token}"} if token else None
        _probe_port(profile.address)
        self._client = self._asked(
            lambda: jobs_api.JobSubmissionClient(profile.address, headers=headers)
        )
        # Ray tells of each package and socket on stderr, which is the user's.
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)

    def ray_version(self) -> str:
        """The version of Ray that the cluster runs."""
        answer = self._asked(lambda: self._client._do_request("GET", "/api/version"))
        return str(answer.json()["ray_version"])

    def jobs(self) -> list[Job]:
        found = self._asked(self._client.list_jobs)
        return [_job(details) for details in found if is_ours(details.submission_id or "")]

    def busy(self) -> bool:
        """Whether a job waits or runs, or a driver is connected, whoever it is."""
        return any(_job(details).live for details in self._asked(self._client.list_jobs))

    def job(self, id: str) -> Job:
        return picked(id, self.jobs())

    def send(self, plan: Plan) -> None:
        with tempfile.TemporaryDirectory(prefix="raycl-plan-") as folder:
            plan.write(Path(folder))
            runtime_env = {**plan.runtime_env, "working_dir": folder}
            if OWN_PACKAGE in runtime_env.get("py_modules", ()):
                runtime_env["py_modules"] = [str(_own_package())]
                runtime_env["excludes"] = _EXCLUDED
            self.submit(plan.id, plan.entrypoint, runtime_env, {"command": plan.name})

    def submit(
        self, id: str, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]
    ) -> None:
        """Sends a job; `AlreadySent` if there is one of this id."""
        send = partial(
            self._client.submit_job,
            entrypoint=entrypoint,
            submission_id=id,
            runtime_env=runtime_env,
            metadata=metadata,
        )
        patient_until = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                self._asked(send)
                return
            except ClusterError as error:
                # Ray answers a used id with an error like any other.
                if any(job.submission_id == id for job in self._asked(self._client.list_jobs)):
                    raise AlreadySent(id) from None
                if NO_AGENT not in str(error) or time.monotonic() > patient_until:
                    raise
            time.sleep(1.0)

    def log(self, id: str, *, follow: bool) -> Iterator[str]:
        if follow:
            yield from self._followed(id)
        else:
            yield str(self._asked(lambda: self._client.get_job_logs(id)))

    def _followed(self, id: str) -> Iterator[str]:
        loop = asyncio.new_event_loop()
        chunks = self._client.tail_job_logs(id)
        try:
            while True:
                try:
                    yield self._asked(lambda: loop.run_until_complete(anext(chunks)))
                except StopAsyncIteration:
                    return
        finally:
            with contextlib.suppress(Exception):
                loop.run_until_complete(chunks.aclose())
            loop.close()

    def stop(self, id: str) -> None:
        self._asked(lambda: self._client.stop_job(id))

    def delete(self, id: str) -> None:
        """Forgets a job that has ended."""
        self._asked(lambda: self._client.delete_job(id))

    def info(self, id: str) -> Job:
        """A job by its full id, one of ours or not."""
        return _job(self._asked(lambda: self._client.get_job_info(id)))

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except (AuthenticationError, PermissionError) as error:
            given = "a wrong token" if self._has_token else "no token"
            raise ClusterError(
                f"the cluster at {self._address} wants a token",
                got=given,
                do="name its file: token_file in the profile, or RAY_AUTH_TOKEN_PATH",
            ) from error
        except (requests.RequestException, aiohttp.ClientError, OSError) as error:
            raise ClusterError(
                f"the Jobs API at {self._address} does not answer: {error}"
            ) from error
        except (RuntimeError, ValueError, KeyError) as error:
            raise ClusterError(
                f"the Jobs API at {self._address} says: {error}",
                do="check that this is the address of Ray's dashboard (port 8265)",
            ) from error


def find_token(profile: RayProfile) -> str | None:
    """The cluster's token: from the profile's file, else where Ray itself looks."""
    if profile.token_file:
        return _token_in(at_home(profile.token_file), must=True)
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return _token_in(at_home(path), must=True)
    with contextlib.suppress(RuntimeError):  # a user without a home
        return _token_in(Path.home() / ".ray" / "auth_token", must=False)
    return None


def _token_in(path: Path, *, must: bool) -> str | None:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if not must:
            return None
        raise ConfigError(
            "the file of the cluster's token cannot be read", got=str(path), do=str(error)
        ) from error
    if must and (not token or not token.isprintable()):
        raise ConfigError("the file of the cluster's token holds no token", got=str(path))
    return token or None


def _probe_port(address: str) -> None:
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), PROBE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"nothing answers at {address}: {error}",
            do="check the address, that the cluster runs, and the tunnel or port-forward to it",
        ) from error


def _own_package() -> Path:
    package = Path(__file__).parents[1]
    size = sum(f.stat().st_size for f in package.rglob("*") if f.is_file() and f.suffix != ".pyc")
    if size > LARGEST_PACKAGE:
        raise ConfigError(
            "the package is too large to travel",
            got=f"{size / 2**20:.0f} MiB",
            do="install raycl on the nodes, or into the image",
        )
    return package


def _job(details: Any) -> Job:
    started = ""
    if details.start_time:
        started = datetime.fromtimestamp(details.start_time / 1000, UTC).isoformat("T", "seconds")
    status = str(getattr(details.status, "value", details.status))
    return Job(
        id=str(details.submission_id),
        state=_STATES.get(status, "failed"),
        detail=(details.message or "").strip().splitlines()[0] if details.message else "",
        code=details.driver_exit_code,
        started=started,
    )
