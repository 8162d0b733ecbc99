"""`synthesise`: an image for every prompt, found in the store or painted over a pool.

Guarantees on one kind of device: an image is the same bits whatever the pool, its workers and
their deaths; each chunk of prompts is painted once, stored at once, and found ever after. Images
are read from the store when they are asked for. Not guaranteed: an image of every prompt; what
was black, NaN or flagged at every try is left out, told, and counted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raycl.compute.here import Here
from raycl.compute.pool import Pool, Resources, WorkerSpec
from raycl.compute.stopping import never
from raycl.config.synthesis import Synthesis
from raycl.errors import DataError, MethodError, StoreError
from raycl.observe.events import BEFORE_TASKS, Computed, Observer, Progress, Reused, Warned, nobody
from raycl.store.store import Store
from raycl.synthesis.identity import FEATURES, IMAGES, NOTES, Chunk, Seeing, chunks_of
from raycl.synthesis.models import model_digest
from raycl.synthesis.prompts import Prompt

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

STAGE = "synthesise"
READERS_AFAR = 16
"""Artefacts that are looked up at once where an answer takes its time."""
SHOWN = 3


@dataclass(eq=False)
class Images:
    """An image for each prompt, in their order, all of them stored."""

    prompts: tuple[Prompt, ...]
    spec: Synthesis
    chunks: tuple[Chunk, ...]
    notes: tuple[dict[str, Any], ...]
    """The fields of an `ImageNotes` for each prompt."""
    store: Store
    computed: int
    """Images that this call painted; `reused` were found."""
    reused: int
    seconds: float
    _opened: tuple[int, pa.Table | None] = field(default=(-1, None), repr=False)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def keys(self) -> tuple[str, ...]:
        """What a result that is made of these images needs."""
        return tuple(dict.fromkeys(chunk.artefact.key for chunk in self.chunks))

    @cached_property
    def left_out(self) -> tuple[int, ...]:
        """The numbers of prompts that have no image."""
        return tuple(i for i, note in enumerate(self.notes) if note["fault"])

    @cached_property
    def manifest(self) -> list[dict[str, Any]]:
        """A row for each prompt: what was asked, and what is known of its image."""
        return [
            {"index": i, "prompt": prompt.text, "seed": prompt.seed, **note}
            for i, (prompt, note) in enumerate(zip(self.prompts, self.notes, strict=True))
        ]

    def pixels(self, number: int) -> bytes:
        """The image of a prompt as the bytes of a lossless WebP."""
        note = self.notes[number]
        if note["fault"]:
            raise DataError(
                f"image {number} was left out: {note['fault']} at every try",
                got=self.prompts[number].text,
            )
        place, row = divmod(number, self.spec.chunk)
        if self._opened[0] != place:
            self._opened = place, _payload(self.store, self.chunks[place], IMAGES)
        table = self._opened[1]
        assert table is not None
        data: bytes = table["image"][row].as_py()
        return data

    def image(self, number: int) -> Image.Image:
        """The image of a prompt, decoded."""
        import io

        from PIL import Image

        with Image.open(io.BytesIO(self.pixels(number))) as opened:
            return opened.convert("RGB")


def synthesise(
    prompts: Sequence[Prompt],
    spec: Synthesis,
    *,
    store: Store,
    pool: Pool,
    observer: Observer = nobody,
    stopping: Callable[[], bool] = never,
    device: str = "cpu",
    resources: Resources | None = None,
    task: int = BEFORE_TASKS,
) -> Images:
    """An image of each prompt, in their order."""
    began = time.monotonic()
    making = _Painting(chunks_of(prompts, spec), store, observer, task)
    making.find()
    args = (spec, model_digest(spec), store.uri, device, Here(stopping))
    making.make(pool, WorkerSpec(_worker("ChunkPainter"), args), resources)
    notes = tuple(note for chunk in making.chunks for note in making.notes[chunk.artefact.key])
    images = Images(
        prompts=tuple(prompts),
        spec=spec,
        chunks=tuple(making.chunks),
        notes=notes,
        store=store,
        computed=making.computed,
        reused=len(prompts) - making.computed,
        seconds=time.monotonic() - began,
    )
    _tell_of_faults(images.prompts, images.notes, spec, observer)
    return images


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """What an encoder sees of the image of each prompt that has one."""

    x: NDArray[np.float32]
    """(images, width), not normalised."""
    rows: NDArray[np.int64]
    """The number of the prompt that each vector is of."""
    notes: tuple[dict[str, Any], ...]
    keys: tuple[str, ...]
    computed: int
    reused: int


def synthesise_features(
    prompts: Sequence[Prompt],
    spec: Synthesis,
    seeing: Seeing,
    *,
    store: Store,
    pool: Pool,
    observer: Observer = nobody,
    stopping: Callable[[], bool] = never,
    device: str = "cpu",
    resources: Resources | None = None,
    task: int = BEFORE_TASKS,
) -> ImageFeatures:
    """The features of an image of each prompt: painted and encoded in one process, so that no
    image travels or is kept."""
    making = _Painting(chunks_of(prompts, spec, seeing), store, observer, task)
    making.find()
    args = (spec, model_digest(spec), store.uri, device, Here(stopping), seeing)
    making.make(pool, WorkerSpec(_worker("FeaturePainter"), args), resources)
    notes = tuple(note for chunk in making.chunks for note in making.notes[chunk.artefact.key])
    _tell_of_faults(prompts, notes, spec, observer)
    tables = [_payload(store, chunk, FEATURES) for chunk in making.chunks]
    vectors = [t["embedding"].combine_chunks() for t in tables]
    return ImageFeatures(
        x=np.concatenate([v.flatten().to_numpy().reshape(len(v), -1) for v in vectors if len(v)]),
        rows=np.concatenate(
            [t["row"].to_numpy() + c.first for t, c in zip(tables, making.chunks, strict=True)]
        ),
        notes=notes,
        keys=tuple(dict.fromkeys(chunk.artefact.key for chunk in making.chunks)),
        computed=making.computed,
        reused=len(prompts) - making.computed,
    )


def _worker(name: str) -> Any:
    from raycl.synthesis import worker

    return getattr(worker, name)


def _payload(store: Store, chunk: Chunk, name: str) -> pa.Table:
    found = store.get(chunk.artefact, only=(name,))
    if found is None:
        raise StoreError(
            f"{chunk} are no longer in the store",
            got=chunk.artefact.key,
            do="synthesise again: only what is missing is painted",
        )
    return found[name]


class _Painting:
    """One call: what was found, what was painted."""

    def __init__(
        self, chunks: Sequence[Chunk], store: Store, observer: Observer, task: int
    ) -> None:
        self.chunks, self.store, self.observer, self.task = chunks, store, observer, task
        self.notes: dict[str, list[dict[str, Any]]] = {}
        """By artefact key, of its images in order."""
        self.computed = 0

    def find(self) -> None:
        """Take what is stored and whole, as far as sizes tell."""
        distinct = list({chunk.artefact.key: chunk for chunk in self.chunks}.values())
        afar = self.store.location.local_root is None
        with ThreadPoolExecutor(READERS_AFAR if afar else 1, "raycl-look-up") as threads:
            found = threads.map(self._stored, distinct)
            for chunk, notes in zip(distinct, found, strict=True):
                if notes is not None:
                    self._note(chunk, notes, computed=False, seconds=0.0)

    def _stored(self, chunk: Chunk) -> list[dict[str, Any]] | None:
        if not self.store.has(chunk.artefact):
            return None
        payloads = self.store.get(chunk.artefact, only=(NOTES,))
        return None if payloads is None else list(payloads[NOTES]["images"])

    def make(self, pool: Pool, worker: WorkerSpec, resources: Resources | None) -> None:
        """Paint what is missing; prompts that are asked for twice, once."""
        missing = {c.artefact.key: c for c in self.chunks if c.artefact.key not in self.notes}
        if not missing:
            return
        self._tell()
        for done in pool.map_unordered(worker, list(missing.values()), resources=resources):
            made = done.value
            self._note(done.item, made.notes, computed=made.computed, seconds=made.seconds)
            self._tell()

    def _note(
        self, chunk: Chunk, notes: list[dict[str, Any]], *, computed: bool, seconds: float
    ) -> None:
        kind, key = chunk.artefact.kind, chunk.artefact.key
        self.notes[key] = notes
        if computed:
            self.computed += len(chunk)
            self.store.computed[kind] += 1
            self.observer(Computed(kind, key, seconds))
        else:
            self.store.reused[kind] += 1
            self.observer(Reused(kind, key))

    def _tell(self) -> None:
        done = sum(len(c) for c in self.chunks if c.artefact.key in self.notes)
        total = sum(map(len, self.chunks))
        self.observer(Progress(self.task, STAGE, done, total, "image"))


def _tell_of_faults(
    prompts: Sequence[Prompt], notes: Sequence[dict[str, Any]], spec: Synthesis, observer: Observer
) -> None:
    """What was cut, what was made again, what is missing; an error if that is all of it."""
    cut = {p.text: n["tokens_cut"] for p, n in zip(prompts, notes, strict=True) if n["tokens_cut"]}
    if cut:
        text, tokens = next(iter(cut.items()))
        observer(
            Warned(
                f"{len(cut)} prompts are longer than the model reads; of {_short(text)!r} the "
                f"last {tokens} tokens say nothing"
            )
        )
    again = sum(note["tries"] > 1 and not note["fault"] for note in notes)
    if again:
        observer(Warned(f"{again} images came right from another seed only"))
    missing = [i for i, note in enumerate(notes) if note["fault"]]
    if not missing:
        return
    counted = Counter(notes[i]["fault"] for i in missing)
    what = ", ".join(f"{count} {fault}" for fault, count in sorted(counted.items()))
    if len(missing) == len(notes):
        raise MethodError(
            f"no image came right in {spec.tries} tries: {what}",
            got=f"model={spec.model}, dtype={spec.dtype}",
            do="NaN and black images are what an overflow leaves: set dtype=fp32 or bf16; "
            "flagged ones are left out by safety=detect",
        )
    first = ", ".join(repr(_short(prompts[i].text)) for i in missing[:SHOWN])
    observer(Warned(f"{len(missing)} images are left out ({what}), e.g. of {first}"))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
