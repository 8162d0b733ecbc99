"""Where work runs: pools of workers and the hosting of one supervised learner.

Importing this package imports neither Ray nor torch. What needs Ray lives in modules
named `ray_*` and is imported by whoever has decided to use it:

    from raycl.compute.ray_session import connect
    from raycl.compute.ray_pool import RayPool
    from raycl.compute.ray_learner import host
"""

from raycl.compute.learner import LearnerContext, Stoppable, Target
from raycl.compute.local_learner import host_in_process
from raycl.compute.local_pool import LocalPool
from raycl.compute.pool import (
    Done,
    LostReferenceError,
    Pool,
    Reference,
    Resources,
    Service,
    WorkerSpec,
)
from raycl.compute.stopping import StopRequest, catching_signals
from raycl.compute.threads import limit_threads, limited_threads

__all__ = [
    "Done",
    "LearnerContext",
    "LocalPool",
    "LostReferenceError",
    "Pool",
    "Reference",
    "Resources",
    "Service",
    "StopRequest",
    "Stoppable",
    "Target",
    "WorkerSpec",
    "catching_signals",
    "host_in_process",
    "limit_threads",
    "limited_threads",
]
