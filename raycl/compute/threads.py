"""How many threads the numerical libraries of a process may use.

The number is part of what makes results equal bit for bit: a sum split over two threads
may round differently. Sets the environment for libraries yet to be loaded, threadpoolctl
for those already here, and torch if (and only if) somebody else imported it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import threadpoolctl

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def limit_threads(count: int) -> None:
    """From now on this process uses that many threads."""
    for name in VARIABLES:
        os.environ[name] = str(count)
    threadpoolctl.threadpool_limits(limits=count)
    _set_torch(count)


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """That many threads inside, as before outside."""
    before = _torch_threads()
    try:
        with threadpoolctl.threadpool_limits(limits=count):
            _set_torch(count)
            yield
    finally:
        if before is not None:
            _set_torch(before)


def _torch_threads() -> int | None:
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def _set_torch(count: int) -> None:
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(count)
