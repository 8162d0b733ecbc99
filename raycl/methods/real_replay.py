"""Replay of real vectors through CGIL's head: what a generator is measured by.

    task end    keep all vectors of each new class, or k of them (`memory.per_class`)
    epoch       256 of each class seen, every kept vector equally often
    keys, loss  as CGIL's

Nothing but the origin of the replayed vectors differs from CGIL. Keeping all of them, it is
an upper line; at k vectors of half precision it is the rival of a generator of as many bytes.
"""

from __future__ import annotations

from raycl.config.methods import RealReplay
from raycl.methods.method import Setting
from raycl.methods.parts.aligned import AlignedMethod


class RealReplayMethod(AlignedMethod[RealReplay]):
    """Keeps vectors and prompts."""

    def __init__(self, spec: RealReplay, setting: Setting) -> None:
        super().__init__(spec, setting, spec.memory)
