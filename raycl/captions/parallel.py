"""`caption_classes`: every class's captions, found in the store or made over a pool.

Guarantees: a class's captions are the same whatever the pool, its workers and their deaths, and
whichever other classes are asked for; each class is captioned once, stored at once, and found
ever after. A class that cannot be captioned is told by name after all others were stored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from raycl.captions.identity import Pictures, class_artefact, model_digests
from raycl.captions.rows import Caption, caption_seed, distinct
from raycl.captions.worker import CAPTIONS, NOTES, Captioned, ClassCaptioner, ClassImages
from raycl.compute.here import Here
from raycl.compute.pool import DEFAULT_RESOURCES, Pool, Resources, WorkerSpec
from raycl.compute.stopping import never
from raycl.config.backbones import Backbone
from raycl.config.captions import Captioning
from raycl.config.seeds import rng
from raycl.errors import DataError, RayclError
from raycl.observe.events import BEFORE_TASKS, Computed, Observer, Progress, Reused, Warned, nobody
from raycl.store.store import Payloads, Store

STAGE = "caption"
SHOWN = 5


@dataclass(frozen=True)
class ClassCaptions:
    """The captions that are kept of one class."""

    name: str
    captions: tuple[Caption, ...]
    images: int
    """How many were captioned."""
    image_bytes: int
    """Of those images, decoded."""
    sides: tuple[tuple[int, int], ...]
    """Width and height of each, in no order that matters."""
    key: str
    seconds: float = field(compare=False)

    @property
    def caption_bytes(self) -> int:
        """What keeping the captions takes: words, seeds and labels."""
        return sum(caption.bytes for caption in self.captions)

    @property
    def side(self) -> tuple[int, int]:
        """The middle width and height of the images."""
        width, height = np.median(np.asarray(self.sides), axis=0)
        return int(width), int(height)


@dataclass(frozen=True)
class Captions:
    """All classes that were asked for, in their order."""

    classes: tuple[ClassCaptions, ...]
    computed: int
    reused: int
    seconds: float
    corrupt: tuple[str, ...] = ()

    @property
    def keys(self) -> list[str]:
        """Of the artefacts that hold them."""
        return [c.key for c in self.classes]


def caption_classes(
    images: Pictures,
    classes: Sequence[tuple[str, Sequence[int]]],
    spec: Captioning,
    *,
    seed: int,
    clip: Backbone,
    store: Store,
    pool: Pool,
    observer: Observer = nobody,
    stopping: Callable[[], bool] = never,
    device: str = "cpu",
    resources: Resources = DEFAULT_RESOURCES,
    skip_corrupt: bool = False,
    task: int = BEFORE_TASKS,
) -> Captions:
    """Captions of some of the rows of each class, which goes by a name that others may share;
    `clip` finds phrases."""
    began = time.monotonic()
    models = model_digests(spec, clip)
    wanted = []
    for name, there in classes:
        own = drawn_rows(there, spec.per_class, seed, name)
        wanted.append(ClassImages(class_artefact(spec, clip, models, images, name, own), name, own))
    making = _Making(store, observer, task, len(wanted))
    making.find([w for w in wanted if w.rows])
    missing = [w for w in wanted if w.rows and w.artefact.key not in making.found]
    if missing:
        args = (spec, clip, images, store.uri, device, Here(stopping))
        for done in pool.map_unordered(
            WorkerSpec(ClassCaptioner, args), missing, resources=resources
        ):
            making.note(done.item, done.value)
    if not skip_corrupt:
        making.refuse_corrupt(wanted)
    making.raise_faults()
    made = [_kept(w, making.found.get(w.artefact.key), spec, seed) for w in wanted]
    corrupt = [place for p in making.found.values() for _, place in p[NOTES]["corrupt"]]
    seconds = time.monotonic() - began
    return Captions(tuple(made), making.computed, making.reused, seconds, tuple(corrupt))


def drawn_rows(rows: Sequence[int], count: int, seed: int, name: str) -> tuple[int, ...]:
    """At most so many of a class's rows, by its name and the seed alone; in order."""
    ordered = np.sort(np.asarray(list(rows), np.int64))
    if len(ordered) > count:
        chosen = rng(seed, "captioned images", name).permutation(len(ordered))[:count]
        ordered = np.sort(ordered[chosen])
    return tuple(int(row) for row in ordered)


def _kept(w: ClassImages, payloads: Payloads | None, spec: Captioning, seed: int) -> ClassCaptions:
    if payloads is None:  # a class without an image
        return ClassCaptions(w.name, (), 0, 0, (), w.artefact.key, 0.0)
    made = [
        Caption(
            said["caption"],
            caption_seed(seed, w.name, said["source"]),
            said["source"],
            said["score"],
        )
        for said in payloads[CAPTIONS].to_pylist()
    ]
    notes = payloads[NOTES]
    sides = tuple((width, height) for width, height in notes["sides"])
    kept = tuple(_chosen(made, spec))
    key = w.artefact.key
    return ClassCaptions(
        w.name, kept, len(made), notes["image_bytes"], sides, key, notes["seconds"]
    )


def _chosen(captions: Sequence[Caption], spec: Captioning) -> list[Caption]:
    """Without duplicates, and of what is left the share that CLIP finds most like its image."""
    found = distinct(captions) if spec.duplicates == "drop" else list(captions)
    if spec.keep < 1 and found:
        count = max(1, math.floor(spec.keep * len(found) + 0.5))
        best = sorted(found, key=lambda c: (-(c.score or 0.0), c.source))[:count]
        found = sorted(best, key=lambda c: c.source)
    return found


class _Making:
    """One call: what was found, what was made, what cannot be."""

    def __init__(self, store: Store, observer: Observer, task: int, classes: int) -> None:
        self.store, self.observer, self.task, self.classes = store, observer, task, classes
        self.found: dict[str, Payloads] = {}
        """By key."""
        self.faults: dict[str, RayclError] = {}
        self.names: dict[str, str] = {}
        """Of the classes with a fault, by key too."""
        self.computed = self.reused = 0

    def find(self, wanted: Sequence[ClassImages]) -> None:
        """Take what is stored."""
        for w in wanted:
            payloads = self.store.get(w.artefact)
            if payloads is not None:
                self.note(w, Captioned(w.artefact, payloads=payloads))

    def note(self, w: ClassImages, made: Captioned) -> None:
        kind, key = made.artefact.kind, made.artefact.key
        if made.fault is not None:
            self.faults[key] = made.fault
            self.names[key] = w.name
            self.observer(Warned(f"{made.fault.what}; the other classes go on"))
            return
        assert made.payloads is not None
        self.found[key] = made.payloads
        if made.computed:
            self.computed += 1
            self.store.computed[kind] += 1
            self.observer(Computed(kind, key, made.seconds))
        else:
            self.reused += 1
            self.store.reused[kind] += 1
            self.observer(Reused(kind, key))
        self.observer(Progress(self.task, STAGE, len(self.found), self.classes, "set"))

    def refuse_corrupt(self, wanted: Sequence[ClassImages]) -> None:
        """Classes with images that cannot be decoded, where none may be left out."""
        for w in wanted:
            payloads = self.found.get(w.artefact.key)
            places = [place for _, place in payloads[NOTES]["corrupt"]] if payloads else []
            if places:
                self.names[w.artefact.key] = w.name
                self.faults[w.artefact.key] = DataError(
                    f"{len(places)} images of class {w.name!r} cannot be decoded",
                    got=", ".join(places[:SHOWN]),
                    do="replace them, or leave them out with --skip-corrupt",
                )

    def raise_faults(self) -> None:
        """The one fault as it is; several as one error that names the classes."""
        if not self.faults:
            return
        if len(self.faults) == 1:
            raise next(iter(self.faults.values()))
        names = ", ".join(repr(name) for name in list(self.names.values())[:SHOWN])
        more = f" and {len(self.faults) - SHOWN} more" if len(self.faults) > SHOWN else ""
        reasons = [str(error).replace("\n", " ") for error in self.faults.values()]
        raise DataError(
            f"{len(self.faults)} of {self.classes} classes cannot be captioned: {names}{more}",
            got="; ".join(reasons[:SHOWN]),
            do="mend or leave out what is named: every other class is stored",
        )
