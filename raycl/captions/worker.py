"""The worker that captions one class after the other, and stores each by itself.

Guarantees: a class is stored as soon as it is captioned; one that takes long saves itself now
and then and goes on from there, so a kill costs a few batches. What is wrong with one class is
told by its name and costs the others nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch
from PIL import Image

from raycl.captions.captioner import Captioner, Said, build_captioner
from raycl.captions.identity import Pictures, unfinished
from raycl.compute.here import Here
from raycl.config.backbones import Backbone
from raycl.config.captions import AttributesCaptioner, Captioning
from raycl.errors import DataError, MethodError, RayclError, StoppedError
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Payloads, Store

CAPTIONS, NOTES, STATE = "captions.parquet", "notes.json", "state.json"
SAVE_EVERY_SECONDS = 10.0


@dataclass(frozen=True, repr=False)
class ClassImages:
    """The images of one class that are to be captioned: one work item."""

    artefact: ArtefactSpec
    name: str
    rows: tuple[int, ...]

    def __repr__(self) -> str:
        return f"captions of class {self.name}"


@dataclass(frozen=True)
class Captioned:
    """What a worker tells of a class."""

    artefact: ArtefactSpec
    computed: bool = False
    seconds: float = 0.0
    payloads: Payloads | None = None
    fault: RayclError | None = None


@dataclass
class _Progress:
    """A class as far as it came; its own JSON is what is saved."""

    done: int = 0
    captions: list[list[Any]] = field(default_factory=list)
    """Of each image that could be decoded: row, words, score."""
    corrupt: list[list[Any]] = field(default_factory=list)
    """Of each that could not: row, place."""
    image_bytes: int = 0
    """Of the captioned images, decoded: height × width × 3."""
    sides: list[list[int]] = field(default_factory=list)
    """Width and height of each."""
    seconds: float = 0.0


class ClassCaptioner:
    """Holds the captioner and the images; called with one class after the other."""

    def __init__(
        self,
        spec: Captioning,
        clip: Backbone,
        images: Pictures,
        store: str,
        device: str,
        here: Here,
    ) -> None:
        self.spec, self.images, self.here = spec, images, here
        place = torch.device(device)
        self.captioner: Captioner = build_captioner(spec.captioner, clip, place)
        self.likeness = None
        if spec.keep < 1 and not isinstance(spec.captioner, AttributesCaptioner):
            from raycl.backbones.encoder import load_encoder
            from raycl.captions.likeness import Likeness

            self.likeness = Likeness(load_encoder(clip, place))
        self.store = Store.open(store, stopping=here.stopping)

    def __call__(self, work: ClassImages) -> Captioned:
        kind = work.artefact.kind
        before = self.store.computed[kind]
        try:
            payloads = self.store.get_or_make(work.artefact, lambda: self._caption(work))
        except (DataError, MethodError) as error:
            return Captioned(work.artefact, fault=error)
        computed = self.store.computed[kind] > before
        return Captioned(work.artefact, computed, payloads[NOTES]["seconds"], payloads)

    def _caption(self, work: ClassImages) -> Payloads:
        """The payloads of a class, from where an earlier process left it."""
        place = unfinished(work.artefact)
        at, saved = self._resumed(place)
        saved_at = time.monotonic()
        while at.done < len(work.rows):
            self._batch(work, at)
            late = time.monotonic() - saved_at > SAVE_EVERY_SECONDS
            stop = self.here.stopping()
            if (late or stop) and at.done < len(work.rows):
                self.store.put(place, {STATE: vars(at)})
                saved, saved_at = True, time.monotonic()
                if stop:
                    raise StoppedError(f"stopped in the captions of {work.name!r}")
        if saved:
            self.store.discard(place)
        if work.rows and not at.captions:
            raise DataError(f"no image of class {work.name!r} can be decoded", got=at.corrupt[0][1])
        notes = {
            name: value for name, value in vars(at).items() if name not in ("captions", "done")
        }
        return {CAPTIONS: _table(at.captions), NOTES: notes}

    def _resumed(self, place: ArtefactSpec) -> tuple[_Progress, bool]:
        if self.store.record(place) is None:
            return _Progress(), False
        found = self.store.get(place)
        return (_Progress(), True) if found is None else (_Progress(**found[STATE]), True)

    def _batch(self, work: ClassImages, at: _Progress) -> None:
        """The next few images."""
        began = time.perf_counter()
        rows = work.rows[at.done : at.done + self.captioner.batch]
        opened: list[tuple[int, Image.Image]] = []
        for row in rows:
            try:
                opened.append((row, self.images.image(row)))
            except DataError:
                at.corrupt.append([row, self.images.place(row)])
        if opened:
            pictures = [image for _, image in opened]
            for (row, image), said in zip(opened, self._say(work.name, pictures), strict=True):
                at.captions.append([row, said.text, said.score])
                at.image_bytes += 3 * image.width * image.height
                at.sides.append([image.width, image.height])
        at.done += len(rows)
        at.seconds += time.perf_counter() - began

    def _say(self, name: str, pictures: Sequence[Image.Image]) -> list[Said]:
        said = self.captioner.say(name, pictures)
        if self.likeness is not None:
            scores = self.likeness(pictures, [one.text for one in said])
            said = [Said(one.text, score) for one, score in zip(said, scores, strict=True)]
        if not all(one.score is None or math.isfinite(one.score) for one in said):
            raise MethodError(
                f"the captioner gives NaN or infinity for class {name!r}",
                do="look at its images, or set the captioner's precision to fp32",
            )
        return [Said(" ".join(one.text.split()), one.score) for one in said]


SCHEMA = pa.schema({"source": pa.int64(), "caption": pa.string(), "score": pa.float32()})


def _table(captions: Sequence[Sequence[Any]]) -> pa.Table:
    columns = list(zip(*captions, strict=True)) or [(), (), ()]
    return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
