"""Clusters that go once nobody has used them for a while.

Guarantees: a job that waits or runs, and a driver that is connected, keep a cluster; one that
does not answer is taken for busy, since nothing is known of it.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from raycl.config.clusters import KubeRayProfile, LauncherProfile, Profile, RayProfile
from raycl.errors import RayclError
from raycl.launch.clusters import Call, carried_out, down, tunnel, up
from raycl.launch.render import jobs_of
from raycl.observe.pulse import clock

POLL_SECONDS = 15.0
_TOLD_EVERY = 600.0
_TICK = 0.2

Tell = Callable[[str], None]


def is_busy(profile: RayProfile) -> bool:
    """Whether anybody uses the cluster, by its Jobs API."""
    from raycl.launch.ray_jobs import RayJobs

    return RayJobs(profile).busy()


def wait_until_idle(
    busy: Callable[[], bool],
    seconds: float,
    *,
    goes_on: Callable[[], bool] = lambda: True,
    tell: Tell = lambda line: None,
    pause: float = POLL_SECONDS,
) -> None:
    """Returns once nobody has been there for so long, or when it is not to go on."""
    pause = min(pause, seconds / 10)  # use that ended between two questions was not seen
    last = told = time.monotonic()
    asked = float("-inf")
    while goes_on():
        now = time.monotonic()
        # Once more at the end: somebody may have come since.
        if math.isfinite(seconds) and (now - asked >= pause or now - last >= seconds):
            asked = now
            try:
                last = now if busy() else last
            except RayclError as error:
                last = now
                if now - told >= _TOLD_EVERY:
                    told = now
                    tell(f"the cluster does not answer, and so stays: {error.what}")
        if now - last >= seconds:
            tell(f"nobody used the cluster for {clock(seconds)}")
            return
        time.sleep(_TICK)


def up_while_used(profile: Profile, seconds: float, call: Call, tell: Tell) -> int:
    """Makes a cluster, and takes it down once it was idle for so long; an exit code."""
    code = carried_out(up(profile), call)
    if code or not isinstance(profile, KubeRayProfile | LauncherProfile):
        return code
    tell(f"it is taken down {clock(seconds)} after its last job, as long as this command runs")
    with _tunnelled(profile):
        wait_until_idle(lambda: is_busy(jobs_of(profile)), seconds, tell=tell)
    return carried_out(down(profile), call)


@contextlib.contextmanager
def _tunnelled(profile: Profile) -> Iterator[None]:
    plan = tunnel(profile)
    with tempfile.TemporaryDirectory(prefix="raycl-tunnel-") as folder:
        for path, content in plan.files.items():
            (Path(folder) / path).write_text(content)
        quiet = subprocess.DEVNULL
        with subprocess.Popen(plan.programs[0], cwd=folder, stdout=quiet, stderr=quiet) as digging:
            try:
                yield
            finally:
                digging.terminate()
