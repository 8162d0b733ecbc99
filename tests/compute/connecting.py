"""Connects in a process of its own, and prints what came of it as one JSON object.

python -m tests.compute.connecting ADDRESS [TOKEN]     ADDRESS may be `local`
"""

from __future__ import annotations

import json
import os
import sys

from raycl.compute import WorkerSpec
from raycl.compute.ray_pool import RayPool
from raycl.compute.ray_session import connect
from raycl.errors import RayclError
from tests.compute.workers import Times


def attempt(address: str | None, token: str | None) -> dict[str, object]:
    before = dict(os.environ)
    try:
        with connect(address, token=token, object_store_mib=100, num_cpus=1) as session:
            with RayPool(workers=1) as pool:
                values = [d.value for d in pool.map_unordered(WorkerSpec(Times, (2,)), [21])]
            told: dict[str, object] = {"values": values, "local": session.local}
    except RayclError as error:
        told = {"error": type(error).__name__, "text": str(error)}
    auth = {name for name in os.environ if name.startswith("RAY_AUTH")}
    told["auth_left_behind"] = sorted(auth - set(before))
    return told


if __name__ == "__main__":
    where = None if sys.argv[1] == "local" else sys.argv[1]
    answer = attempt(where, sys.argv[2] if len(sys.argv) > 2 else None)
    sys.stdout.write(json.dumps(answer) + "\n")
