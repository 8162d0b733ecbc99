"""Packs: objects of many shards, how they are made again, and who owns them.

Guarantees: a pack that is read again has the bytes it had, or is a `DataError`; a pack whose
shards cannot all be read again is itself an artefact, named by its content, if there is a
store. `OwnPacks` puts objects from the calling process, which owns them; `SharedPacks` asks a
named service for them, which reads them from the store itself and so owns them.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from raycl.compute.local_pool import LocalPool
from raycl.compute.pool import LostReferenceError, Pool, Reference, WorkerSpec
from raycl.config.spec import digest
from raycl.errors import ConfigError, CorruptArtefactError, DataError
from raycl.replay.room import Room
from raycl.replay.shards import ArtefactRows, Matrix, Shelf, Source
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store

KIND = "replay-pack"
_PAYLOAD = "vectors.bin"


@dataclass(frozen=True)
class Piece:
    """Rows `first` to `first + rows` of one shard."""

    shard: int
    first: int
    rows: int
    source: Source | None


@dataclass(frozen=True)
class Recipe:
    """One pack: what it holds, and all that is needed to make it again."""

    pieces: tuple[Piece, ...]
    rows: int
    width: int
    dtype: str
    content: str
    """SHA-256 of its bytes."""
    mirrored: bool = False
    """Whether the pack itself is an artefact."""

    @property
    def nbytes(self) -> int:
        return self.rows * self.width * np.dtype(self.dtype).itemsize

    @property
    def artefact(self) -> ArtefactSpec:
        identity: dict[str, Any] = {
            "content": self.content,
            "rows": self.rows,
            "width": self.width,
            "dtype": self.dtype,
        }
        return ArtefactSpec(KIND, f"{self.rows}x{self.width}", identity, identity)


def recipe_of(pieces: Sequence[Piece], matrix: Matrix) -> Recipe:
    """The recipe of a pack that is in memory."""
    rows, width = matrix.shape
    return Recipe(tuple(pieces), rows, width, matrix.dtype.name, _content(matrix))


def _content(matrix: Matrix) -> str:
    return hashlib.sha256(np.ascontiguousarray(matrix).view(np.uint8).data).hexdigest()


def mirror(store: Store, recipe: Recipe, matrix: Matrix) -> Recipe:
    """The recipe with the pack in the store; one that is there already is left as it is."""
    spec = recipe.artefact
    if not store.has(spec):
        store.get_or_make(spec, lambda: {_PAYLOAD: matrix.view(np.uint8).data})
    return Recipe(
        recipe.pieces, recipe.rows, recipe.width, recipe.dtype, recipe.content, mirrored=True
    )


def load(recipe: Recipe, store: Store | None) -> Matrix:
    """The pack from the store or from its sources; the same bytes, or an error."""
    try:
        matrix = _stored(recipe, store) if recipe.mirrored else _assembled(recipe, store)
    except (DataError, CorruptArtefactError) as error:
        raise LostReferenceError(
            f"{_named(recipe)} is lost and cannot be read again: {error.what}",
            got=error.got,
            do="run the same command again, which makes it anew",
        ) from error
    if matrix.shape != (recipe.rows, recipe.width) or _content(matrix) != recipe.content:
        raise DataError(
            f"{_named(recipe)} was read again and is not what it was",
            do="its source changed meanwhile; build the buffer again",
        )
    return matrix


def _stored(recipe: Recipe, store: Store | None) -> Matrix:
    payloads = None if store is None else store.get(recipe.artefact)
    if payloads is None:
        raise DataError("the store no longer has it", got=recipe.artefact.key)
    flat = np.frombuffer(payloads[_PAYLOAD], dtype=recipe.dtype)
    return flat.reshape(-1, recipe.width)


def _assembled(recipe: Recipe, store: Store | None) -> Matrix:
    shelf = Shelf(store)
    out = np.empty((recipe.rows, recipe.width), recipe.dtype)
    start = 0
    for piece in recipe.pieces:
        if piece.source is None:
            raise DataError("nobody told where to read it again, and there is no store")
        vectors = np.asarray(shelf.read(piece.source))[piece.first : piece.first + piece.rows]
        if vectors.shape != (piece.rows, recipe.width):
            raise DataError("its source has other vectors now", got=str(vectors.shape))
        out[start : start + piece.rows] = vectors
        start += piece.rows
    return out


def _named(recipe: Recipe) -> str:
    return f"a replay pack of {recipe.rows} x {recipe.width} {recipe.dtype}"


class Packs(Protocol):
    """Who puts packs into the object store."""

    def share(self, recipe: Recipe, matrix: Matrix) -> tuple[Recipe, Reference]:
        """The pack as an object; the recipe may have gained a mirror."""

    def renew(self, recipe: Recipe) -> Reference:
        """An object for a pack that was lost."""


class OwnPacks:
    """Objects of the calling process: they live as long as it does."""

    def __init__(self, pool: Pool, store: Store | None, room: Room) -> None:
        self._pool, self._store, self._room = pool, store, room

    def share(self, recipe: Recipe, matrix: Matrix) -> tuple[Recipe, Reference]:
        if self._store is not None and any(piece.source is None for piece in recipe.pieces):
            recipe = mirror(self._store, recipe, matrix)
        self._room.take(recipe.nbytes)
        return recipe, self._pool.put(_frozen(matrix))

    def renew(self, recipe: Recipe) -> Reference:
        return self._pool.put(_frozen(load(recipe, self._store)))


class SharedPacks:
    """Objects of the manifest of this cluster and store: they outlive whoever asked."""

    def __init__(self, pool: Pool, store: Store, *, spill: bool) -> None:
        self._store, self._spill = store, spill
        where: Where = "local" if isinstance(pool, LocalPool) else "ray"
        name = f"raycl-replay-{digest([store.uri])}"
        self.service = pool.service(name, WorkerSpec(Manifest, (store.uri, where)))

    def share(self, recipe: Recipe, matrix: Matrix) -> tuple[Recipe, Reference]:
        # A loader may close over this process; the manifest reads nothing but the store.
        if not all(isinstance(piece.source, ArtefactRows) for piece in recipe.pieces):
            recipe = mirror(self._store, recipe, matrix)
        return recipe, self.renew(recipe)

    def renew(self, recipe: Recipe) -> Reference:
        reference: Reference = self.service.call("pack", _portable(recipe), self._spill)
        return reference


def _portable(recipe: Recipe) -> Recipe:
    if not recipe.mirrored:
        return recipe
    return Recipe((), recipe.rows, recipe.width, recipe.dtype, recipe.content, mirrored=True)


def _frozen(matrix: Matrix) -> Matrix:
    """Read-only, as it comes out of an object store."""
    matrix.flags.writeable = False
    return matrix


Where = Literal["local", "ray"]


@dataclass
class Manifest:
    """The state of the shared service: which packs are objects now, by their content.

    It loads them itself, so it owns them, and whoever asked may die. Its state is a cache:
    if it dies itself, the next request reads the pack from the store again.
    """

    store_uri: str
    where: Where
    most_bytes: int | None = None
    """Packs asked for least recently are let go past this; their readers keep them."""
    _packs: OrderedDict[str, tuple[Reference, int]] = field(default_factory=OrderedDict)
    _loads: int = 0

    def __post_init__(self) -> None:
        self._store = Store.open(self.store_uri)
        self._pool = _pool_here(self.where)

    def pack(self, recipe: Recipe, spill: bool = False) -> Reference:
        """The object of that content, loaded if there is none that can still be read."""
        name = f"{recipe.content}-{recipe.rows}x{recipe.width}-{recipe.dtype}"
        if name in self._packs and not self._alive(self._packs[name][0]):
            del self._packs[name]
        if name not in self._packs:
            matrix = load(recipe, self._store)
            Room(self._pool, None, spill=spill).take(recipe.nbytes)
            self._packs[name] = (self._pool.put(_frozen(matrix)), recipe.nbytes)
            self._loads += 1
        self._packs.move_to_end(name)
        while self.most_bytes is not None and len(self._packs) > 1:
            if sum(size for _, size in self._packs.values()) <= self.most_bytes:
                break
            self._packs.popitem(last=False)
        return self._packs[name][0]

    @staticmethod
    def _alive(reference: Reference) -> bool:
        try:
            reference.get()
        except LostReferenceError:
            return False
        return True

    def process(self) -> int:
        """Where it lives."""
        return os.getpid()

    def forget(self) -> None:
        """Lets go of every pack, e.g. at the end of a sweep."""
        self._packs.clear()

    def metrics(self) -> dict[str, int]:
        """How many objects it holds, their bytes, and how often it read the store."""
        held = sum(size for _, size in self._packs.values())
        return {"packs": len(self._packs), "bytes": held, "loads": self._loads}


def _pool_here(where: Where) -> Pool:
    if where == "local":
        return LocalPool()
    from raycl.compute.ray_pool import RayPool

    return RayPool(workers=1)


def shared_packs(pool: Pool, store: Store | None, *, spill: bool) -> SharedPacks:
    """The shared owner; it reads everything from the store, so there must be one."""
    if store is None:
        raise ConfigError(
            "a replay buffer shared across trials needs a store",
            do="give it one that every node can reach, or leave shared=True out",
        )
    return SharedPacks(pool, store, spill=spill)
