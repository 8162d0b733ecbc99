"""What a method keeps after each task, each large tensor stored once over all tasks.

    state after task t = the tensors that task t made or changed
                       + by name, the earlier states that hold the others

A generator fitted in the first task is part of every later state; written out each time, ten
tasks of decoders would be stored five times over. Whether a tensor is the one of before is
told by its digest, so a method need not say. A state whose parts are gone or damaged counts as
not there, and an earlier one is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from raycl.methods.method import State
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store

TENSORS, NOTES, PARTS = "state.safetensors", "notes.json", "parts.json"
WORTH_BYTES = 64 * 1024
"""A tensor smaller than this is written again rather than looked for."""


@dataclass(frozen=True)
class Origin:
    """Where a tensor was first written: the task, and a digest of what it holds."""

    task: int
    digest: str


@dataclass
class States:
    """The states of one run. `naming` gives the artefact of the state after a task."""

    store: Store
    naming: Callable[[int], ArtefactSpec]
    known: dict[str, Origin] = field(default_factory=dict)
    """The large tensors of the state that was written or read last."""

    def payloads(self, task: int, state: State, notes: Mapping[str, Any]) -> dict[str, Any]:
        """What to store after this task."""
        found = {n: self._origin(n, t, task) for n, t in state.items() if t.nbytes >= WORTH_BYTES}
        earlier = {name for name, origin in found.items() if origin.task < task}
        self.known = found
        return {
            TENSORS: {name: tensor for name, tensor in state.items() if name not in earlier},
            PARTS: {name: [origin.task, origin.digest] for name, origin in found.items()},
            NOTES: notes,
        }

    def needs(self) -> list[str]:
        """Keys of the states that the last one written or read takes tensors from."""
        return [self.naming(task).key for task in sorted({o.task for o in self.known.values()})]

    def _origin(self, name: str, tensor: Tensor, task: int) -> Origin:
        digest = digest_of(tensor)
        before = self.known.get(name)
        return before if before is not None and before.digest == digest else Origin(task, digest)

    def get(self, task: int) -> tuple[State, dict[str, Any]] | None:
        """Tensors and notes after this task, if all of it is there."""
        own = self.store.get(self.naming(task))
        return None if own is None else self.read(task, own)

    def read(self, task: int, own: Mapping[str, Any]) -> tuple[State, dict[str, Any]] | None:
        """The same from the payloads of its own artefact."""
        known = {name: Origin(*origin) for name, origin in own.get(PARTS, {}).items()}
        state: State = dict(own[TENSORS])
        for origin in sorted({o.task for o in known.values()} - {task}):
            part = self.store.get(self.naming(origin), only=(TENSORS,))
            wanted = {n for n, o in known.items() if o.task == origin and n not in state}
            if part is None or not wanted <= part[TENSORS].keys():
                return None
            state |= {name: part[TENSORS][name] for name in wanted}
        if any(digest_of(state[name]) != origin.digest for name, origin in known.items()):
            return None  # an earlier state was made again, and came out otherwise
        self.known = known
        return state, own[NOTES]


def digest_of(tensor: Tensor) -> str:
    """Of type, shape and bytes."""
    found = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
