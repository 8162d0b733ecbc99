"""A Gaussian per class whose statistics may follow a moving encoder.

    kept of a class    μ (as calibrated so far), n, the task it came with, and L of Σ = L Lᵀ
    kept of a task     the maps M that calibration gave it, if any
    a draw             x = μ + M_T … M_{t+1} L ε      for a class of task t, after task T

L is never written again, so a state shares its bytes with those before. Where there is a store
each L is an artefact named by its content (half a MiB at d = 512) and is read when its class is
drawn or calibrated: one at a time, however many there are. Without a store they are part of the
state. A class without a sample has no Gaussian.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.config.dmc import CalibratorSpec
from raycl.errors import StoreError
from raycl.generators.gaussian import packed, unpacked
from raycl.methods.context import Context
from raycl.methods.method import Figures, Setting
from raycl.methods.parts.calibration.build import calibrate
from raycl.methods.parts.calibration.drift import Drift, Moved, covariance
from raycl.methods.parts.keys import unit
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store

KIND = "gaussian"
PAYLOAD = "gaussian.safetensors"
START = "memory."


@dataclass(frozen=True, eq=False)
class Map:
    """What the covariances of classes older than `task` are multiplied by."""

    task: int
    maps: Tensor
    """(k, d, d)"""
    weights: Tensor | None
    """(classes older, k); None where there is one map."""

    def of(self, index: int) -> Tensor:
        """(d, d) of the class at this place."""
        if self.weights is None:
            return self.maps[0]
        return torch.einsum("k,kde->de", self.weights[index], self.maps)


class GaussianMemory:
    """The classes that have samples, in order of arrival."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.classes: tuple[int, ...] = ()
        self.means = torch.empty(0, setting.width)
        self.first_means = torch.empty(0, setting.width)
        """As they were when the class came."""
        self.counts = torch.empty(0, dtype=torch.long)
        self.born = torch.empty(0, dtype=torch.long)
        """The task of each class."""
        self.maps: list[Map] = []
        self._here: dict[int, Tensor] = {}
        self._stored: dict[int, str] = {}
        """Packed L of a class, or the digest of what the store has of it."""

    def learn(self, x: Tensor, y: Tensor, classes: tuple[int, ...], context: Context) -> None:
        """Take the statistics of these classes, in the place of what was known of them."""
        x = unit(x.double())
        for c in classes:
            rows = x[y == c]
            if len(rows):
                mean, root = rows.mean(dim=0).float(), torch.linalg.cholesky(covariance(rows))
                self._put(c, mean, packed(root).float(), context.store)
                self._note(c, mean, len(rows), context.task)

    def _note(self, c: int, mean: Tensor, count: int, task: int) -> None:
        if c in self.classes:
            at = self.classes.index(c)
            for means in (self.means, self.first_means):
                means[at] = mean
            self.counts[at] = count
            return
        self.classes += (c,)
        self.means = torch.cat([self.means, mean[None]])
        self.first_means = torch.cat([self.first_means, mean[None]])
        self.counts = torch.cat([self.counts, torch.tensor([count])])
        self.born = torch.cat([self.born, torch.tensor([task])])

    def older(self, task: int) -> int:
        """How many classes came before a task."""
        return int((self.born < task).sum())

    def calibrate(self, spec: CalibratorSpec, moved: Moved, context: Context) -> None:
        """Carry the classes older than this task to where the encoder has moved."""
        older = self.older(context.task)
        if not older or not len(moved):
            return
        drift = calibrate(spec, moved, _Old(self, older, context.store))
        if drift is not None:
            self.means = torch.cat([drift.means.float(), self.means[older:]])
            self._take_maps(drift, context.task)

    def _take_maps(self, drift: Drift, task: int) -> None:
        if drift.maps is not None:
            weights = None if drift.weights is None else drift.weights.float()
            self.maps.append(Map(task, drift.maps.float(), weights))

    def draw(
        self, index: int, count: int, generator: torch.Generator, store: Store | None
    ) -> Tensor:
        """(count, d) of the class at this place; not of unit length."""
        noise = torch.randn(count, self.setting.width, generator=generator)
        spread = noise @ self.root(index, store).T
        for step in self._maps_of(index):
            spread = spread @ step.T
        return self.means[index] + spread

    def root(self, index: int, store: Store | None) -> Tensor:
        """L of the class at this place, as it was when the class came."""
        return unpacked(self._get(self.classes[index], store), self.setting.width)

    def covariance(self, index: int, store: Store | None) -> Tensor:
        """Σ of the class at this place as it stands now, float64."""
        root = self.root(index, store).double()
        for step in self._maps_of(index):
            root = step.double() @ root
        return root @ root.T

    def _maps_of(self, index: int) -> list[Tensor]:
        """What moved this class since it came, the first first."""
        return [step.of(index) for step in self.maps if step.task > int(self.born[index])]

    def errors(self, x: Tensor, y: Tensor) -> Figures:
        """Mean distances of the kept means from those of these unit vectors."""
        newest = int(self.born.max()) if len(self.born) else 0
        found: dict[str, list[float]] = {name: [] for name in ("old", "uncalibrated", "new")}
        for index, c in enumerate(self.classes):
            rows = x[y == c]
            if len(rows):
                true, older = rows.mean(dim=0), int(self.born[index]) < newest
                name = "old" if older else "new"
                found[name].append(float((self.means[index] - true).norm()))
                if older:
                    first = self.first_means[index]
                    found["uncalibrated"].append(float((first - true).norm()))
        return {
            f"mean_error_{name}": sum(values) / len(values) if values else None
            for name, values in found.items()
        }

    # What is in the store, or here

    @property
    def stored(self) -> dict[str, int]:
        """Keys of artefacts, and bytes of each."""
        width = self.setting.width
        size = 4 * (width + width * (width + 1) // 2)
        return {self._artefact(c, found).key: size for c, found in self._stored.items()}

    def _put(self, c: int, mean: Tensor, root: Tensor, store: Store | None) -> None:
        if store is None:
            self._here[c] = root
            return
        content = hashlib.sha256(mean.numpy().tobytes() + root.numpy().tobytes()).hexdigest()[:32]
        spec = self._artefact(c, content)
        if store.get(spec) is None:  # read, so that a damaged one is made again
            store.put(spec, {PAYLOAD: {"mean": mean, "factor": root}})
            store.computed[KIND] += 1
        self._stored[c] = content

    def _get(self, c: int, store: Store | None) -> Tensor:
        if c in self._here:
            return self._here[c]
        spec = self._artefact(c, self._stored[c])
        found = None if store is None else store.get(spec)
        if found is None:
            raise StoreError(
                f"the statistics of class {self.setting.class_names[c]!r} are not in the store",
                got=spec.key,
                do="run the command again: the tasks that they come from are learnt again",
            )
        root: Tensor = found[PAYLOAD]["factor"]
        return root

    def _artefact(self, c: int, content: str) -> ArtefactSpec:
        named = {"content": content}
        return ArtefactSpec(
            KIND, self.setting.class_names[c], identity={**named}, described={**named}
        )

    # State

    def state(self) -> dict[str, Tensor]:
        """All that is kept, but what the store has."""
        out = {
            "classes": torch.tensor(self.classes, dtype=torch.long),
            "means": self.means,
            "first_means": self.first_means,
            "counts": self.counts,
            "born": self.born,
        }
        out |= {f"root.{c}": root for c, root in self._here.items()}
        out |= {f"stored.{c}": _bytes(found) for c, found in self._stored.items()}
        for step in self.maps:
            out[f"maps.{step.task}"] = step.maps
            if step.weights is not None:
                out[f"weights.{step.task}"] = step.weights
        return {START + name: tensor for name, tensor in out.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        own = {n.removeprefix(START): t.cpu() for n, t in state.items() if n.startswith(START)}
        self.classes = tuple(own["classes"].tolist())
        self.means, self.first_means = own["means"].clone(), own["first_means"].clone()
        self.counts, self.born = own["counts"].clone(), own["born"]
        self._here = {int(n): t for n, t in _under("root.", own).items()}
        self._stored = {int(n): bytes(t.tolist()).hex() for n, t in _under("stored.", own).items()}
        maps, weights = _under("maps.", own), _under("weights.", own)
        self.maps = [
            Map(task, maps[str(task)], weights.get(str(task))) for task in sorted(map(int, maps))
        ]


class _Old:
    """The classes older than a task, for a calibrator."""

    def __init__(self, memory: GaussianMemory, older: int, store: Store | None) -> None:
        self.memory, self.store = memory, store
        self.means = memory.means[:older].double()

    def covariance(self, index: int) -> Tensor:
        return self.memory.covariance(index, self.store)


def _bytes(digest: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8)


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
