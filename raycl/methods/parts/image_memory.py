"""What is remembered of past classes: captions with seeds, images, or some of both.

    caption(t) → synthesise(t) → vectors(t)      and for stored images   images(t) → vectors(t)
    v ← E(drawn)/|E(drawn)| + s,   s = mean over classes of (mean of real - mean of drawn)

Only captions, seeds, labels, sizes, stored images and s are state. Synthetic images are a cache in
the store: what is gone is painted again from caption and seed, on one kind of device to the bit.
They are brought to the resolution of the class's own images and go through the same transform
and encoder as those.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from raycl.backbones.encoder import Encoder
from raycl.captions.parallel import ClassCaptions, caption_classes, drawn_rows
from raycl.captions.rows import LABEL_BYTES, SEED_BYTES
from raycl.compute.local_pool import LocalPool
from raycl.compute.pool import Pool
from raycl.config.clts import CLTS
from raycl.config.seeds import rng, seed_for
from raycl.errors import DataError
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.keys import unit
from raycl.store.store import Store
from raycl.streams.opened import OpenedImages
from raycl.streams.stream import Task
from raycl.synthesis import synthesise as painting
from raycl.synthesis.prompts import Prompt

ENOUGH_CAPTIONS, ENOUGH_IMAGES = 50, 100
"""Of a class: with so many captions one image each will do, else there are so many images."""

Vectors = tuple[Tensor, Tensor]
"""Rows, and the class id of each."""


@dataclass(frozen=True)
class Remembered:
    """What one task left: all of it is state."""

    texts: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    """The class id of each caption."""
    sides: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Width and height of a class's own images."""
    shift: Tensor | None = None
    """(classes of `sides` or 1, width): how far real vectors lie from those of what is drawn."""
    images: tuple[Image.Image, ...] = ()
    image_labels: tuple[int, ...] = ()
    captioned_bytes: int = 0
    """Of the images that were captioned, decoded."""

    @property
    def caption_bytes(self) -> int:
        """Words, seeds and labels."""
        words = sum(len(text.encode()) for text in self.texts)
        return words + len(self.texts) * (SEED_BYTES + LABEL_BYTES)

    @property
    def image_bytes(self) -> int:
        """Of the stored images, decoded, with their labels."""
        pixels = sum(3 * image.width * image.height for image in self.images)
        return pixels + len(self.images) * LABEL_BYTES


class ImageMemory:
    """One entry for each task, in their order; vectors are made of it when they are asked for."""

    def __init__(self, spec: CLTS, setting: Setting, encoder: Encoder) -> None:
        self.spec, self.setting, self.encoder = spec, setting, encoder
        self.tasks: list[Remembered] = []
        self._vectors: dict[int, Vectors] = {}
        """By task: a cache, and no state."""

    def learn(self, task: Task, context: Context) -> None:
        """Caption or keep some images of each class of the task."""
        pixels = task.train.pixels
        if pixels is None:
            raise DataError(
                "CLTS captions images, and these samples are vectors only",
                do="give a stream of images",
            )
        pictures = pixels.pictures
        rows = {c: self._drawn(c, pixels.images[task.train.y.numpy() == c]) for c in task.classes}
        kept = {c: self._kept(c, own) for c, own in rows.items()}
        captioned = {c: [r for r in own if r not in set(kept[c])] for c, own in rows.items()}
        stored = [(c, pictures.image(row)) for c, own in kept.items() for row in own]
        found = self._captions(captioned, pictures, context) if any(captioned.values()) else {}
        kept_now = self._entry(found, stored)
        drawn = self._painted(kept_now, context)
        shift = self._difference(kept_now, drawn, (task.train.x, task.train.y))
        self.tasks.append(replace(kept_now, shift=shift))
        self._vectors[len(self.tasks) - 1] = self._joined(self.tasks[-1], drawn)

    def _entry(
        self, found: Mapping[int, ClassCaptions], stored: Sequence[tuple[int, Image.Image]]
    ) -> Remembered:
        return Remembered(
            texts=tuple(x.text for k in found.values() for x in k.captions),
            seeds=tuple(x.seed for k in found.values() for x in k.captions),
            labels=tuple(c for c, k in found.items() for _ in k.captions),
            sides={c: k.side for c, k in found.items() if k.captions},
            images=tuple(image for _, image in stored),
            image_labels=tuple(c for c, _ in stored),
            captioned_bytes=sum(k.image_bytes for k in found.values()),
        )

    def _drawn(self, c: int, rows: Sequence[int]) -> tuple[int, ...]:
        """The images of a class that are remembered, in one way or the other."""
        name = self.setting.class_names[c]
        return drawn_rows(rows, self.spec.captions.per_class, self.setting.init_seed, name)

    def _kept(self, c: int, rows: Sequence[int]) -> list[int]:
        """Those of them that are stored as images."""
        share = {"synthetic": 0.0, "real": 1.0, "mixed": self.spec.real_share}[self.spec.replay]
        order = rng(self.setting.init_seed, "kept images", c).permutation(len(rows))
        return sorted(rows[i] for i in order[: round(share * len(rows))])

    def _captions(
        self, rows: Mapping[int, Sequence[int]], pictures: OpenedImages, context: Context
    ) -> dict[int, ClassCaptions]:
        began = time.monotonic()
        with lent_store(context) as store:
            made = caption_classes(
                pictures,
                [(self.setting.class_names[c], own) for c, own in rows.items()],
                self.spec.captions,
                seed=self.setting.init_seed,
                clip=self.encoder.backbone,
                store=store,
                pool=self._pool(context),
                observer=context.observer,
                stopping=context.stopping,
                device=self.setting.device.type,
                task=context.task,
            )
        context.seconds["caption"] = time.monotonic() - began
        if context.store is not None:
            context.used += [c.key for c in made.classes if c.images]
        return dict(zip(rows, made.classes, strict=True))

    def _pool(self, context: Context) -> Pool:
        if self.setting.device.type == "cpu":
            return context.pool
        # The pool's workers have no part of the learner's device.
        return LocalPool(stopping=context.stopping)

    def vectors(self, context: Context) -> Vectors:
        """Of all that is remembered of all tasks."""
        for number in range(len(self.tasks)):
            if number not in self._vectors:
                self._vectors[number] = self._made(self.tasks[number], context)
        every = [self._vectors[number] for number in range(len(self.tasks))]
        x, y = [torch.empty(0, self.setting.width)], [torch.empty(0, dtype=torch.long)]
        return torch.cat(x + [own for own, _ in every]), torch.cat(y + [own for _, own in every])

    def _made(self, kept: Remembered, context: Context) -> Vectors:
        return self._joined(kept, self._painted(kept, context))

    def _painted(self, kept: Remembered, context: Context) -> Vectors:
        """Unit vectors of what is drawn of a task's captions."""
        if not kept.texts:
            return self._encoded(iter(()))
        began = time.monotonic()
        with lent_store(context) as store:
            x, y = self._encoded(self._synthetic(kept, store, context))
        before = context.seconds.get("synthesise", 0.0)
        context.seconds["synthesise"] = before + time.monotonic() - began
        return unit(x), y

    def _joined(self, kept: Remembered, drawn: Vectors) -> Vectors:
        """Those of stored images, and the drawn ones moved to where real ones lie."""
        x, y = drawn
        if kept.shift is not None:
            place = {c: i if len(kept.shift) > 1 else 0 for i, c in enumerate(kept.sides)}
            rows = torch.tensor([place[c] for c in y.tolist()], dtype=torch.long)
            x = unit(x + kept.shift[rows])
        real_x, real_y = self._encoded(zip(kept.image_labels, kept.images, strict=True))
        return torch.cat([unit(real_x), x]), torch.cat([real_y, y])

    def _difference(self, kept: Remembered, drawn: Vectors, real: Vectors) -> Tensor | None:
        """How far real vectors lie from those of what is drawn of the same classes."""
        if self.spec.shift == "none" or not len(drawn[0]):
            return None
        each = torch.stack([_mean(*real, c) - _mean(*drawn, c) for c in kept.sides])
        return each if self.spec.shift == "class" else each.mean(dim=0, keepdim=True)

    def _synthetic(
        self, kept: Remembered, store: Store, context: Context
    ) -> Iterator[tuple[int, Image.Image]]:
        """The images of a task's captions, at the resolution of their class's own."""
        prompts, labels = self.prompts(kept)
        images = painting.synthesise(
            prompts,
            self.spec.synthesis,
            store=store,
            pool=self._pool(context),
            observer=context.observer,
            stopping=context.stopping,
            device=self.setting.device.type,
            task=context.task,
        )
        without = set(images.left_out)
        for number, c in enumerate(labels):
            if number not in without:
                image = images.image(number)
                yield c, brought_down(image, kept.sides[c]) if self.spec.resize else image

    def prompts(self, kept: Remembered) -> tuple[list[Prompt], list[int]]:
        """What is drawn of a task's captions, and the class id of each."""
        counts = {c: kept.labels.count(c) for c in set(kept.labels)}
        prompts: list[Prompt] = []
        labels: list[int] = []
        for text, seed, c in zip(kept.texts, kept.seeds, kept.labels, strict=True):
            each = self.spec.images_per_caption or _each(counts[c])
            asked = self._asked(c, text)
            seeds = [seed, *(seed_for(seed, "another image", i) for i in range(1, each))]
            prompts += [Prompt(asked, own) for own in seeds]
            labels += [c] * each
        return prompts, labels

    def _asked(self, c: int, caption: str) -> str:
        filled = self.spec.template.replace("{class}", "\0").replace("{caption}", caption)
        return filled.replace("\0", self.setting.class_names[c])

    def _encoded(self, images: Iterator[tuple[int, Image.Image]]) -> Vectors:
        """Vectors of images through the stream's own transform; a few decoded at a time."""
        x: list[Tensor] = []
        labels: list[int] = []
        pixels: list[Tensor] = []
        for c, image in images:
            labels.append(c)
            pixels.append(self.encoder.preprocess(image))
            if len(pixels) == self.encoder.batch:
                x.append(self.encoder.encode_images(torch.stack(pixels)))
                pixels = []
        if pixels:
            x.append(self.encoder.encode_images(torch.stack(pixels)))
        empty = torch.empty(0, self.setting.width)
        return torch.cat([empty, *x]), torch.tensor(labels, dtype=torch.long)

    def state(self) -> dict[str, Tensor]:
        """Captions as their bytes, a line each; images as theirs."""
        out: dict[str, Tensor] = {}
        for number, kept in enumerate(self.tasks):
            parts = {
                "captions": _bytes("\n".join(kept.texts).encode()),
                "seeds": torch.tensor(kept.seeds, dtype=torch.int64),
                "labels": torch.tensor(kept.labels, dtype=torch.int32),
                "sides": torch.tensor(
                    [[c, *side] for c, side in kept.sides.items()], dtype=torch.int32
                ).reshape(-1, 3),
                "shift": torch.empty(0, self.setting.width) if kept.shift is None else kept.shift,
                "captioned_bytes": torch.tensor(kept.captioned_bytes),
                "images": _bytes(b"".join(image.tobytes() for image in kept.images)),
                "image_sides": torch.tensor(
                    [image.size for image in kept.images], dtype=torch.int32
                ).reshape(-1, 2),
                "image_labels": torch.tensor(kept.image_labels, dtype=torch.int32),
            }
            out |= {f"memory.{number}.{name}": tensor for name, tensor in parts.items()}
        return out

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave; vectors are made again when they are asked for."""
        self.tasks, self._vectors = [], {}
        while (at := f"memory.{len(self.tasks)}.") + "captions" in state:
            own = {n.removeprefix(at): t for n, t in state.items() if n.startswith(at)}
            text = own["captions"].numpy().tobytes().decode()
            labels = tuple(own["labels"].tolist())
            self.tasks.append(
                Remembered(
                    texts=tuple(text.split("\n")) if labels else (),
                    seeds=tuple(own["seeds"].tolist()),
                    labels=labels,
                    sides={c: (width, height) for c, width, height in own["sides"].tolist()},
                    shift=own["shift"].clone() if len(own["shift"]) else None,
                    images=tuple(_images(own["images"], own["image_sides"])),
                    image_labels=tuple(own["image_labels"].tolist()),
                    captioned_bytes=int(own["captioned_bytes"]),
                )
            )


def brought_down(image: Image.Image, side: tuple[int, int]) -> Image.Image:
    """The image with its shorter side as long as that of images of this size, if it is longer;
    its own proportions."""
    factor = min(side) / min(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(length * factor)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


@contextmanager
def lent_store(context: Context) -> Iterator[Store]:
    """The run's store; one of this moment for whoever has none."""
    if context.store is not None:
        yield context.store
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Store.open(folder, stopping=context.stopping)


def _each(captions: int) -> int:
    """Images of each caption, of which a class has so many."""
    return 1 if captions >= ENOUGH_CAPTIONS else -(-ENOUGH_IMAGES // captions)


def _mean(x: Tensor, y: Tensor, c: int) -> Tensor:
    """Of the unit vectors of a class; zero where all of them were left out."""
    own = unit(x[y == c].float().cpu())
    return own.mean(dim=0) if len(own) else own.new_zeros(x.shape[1])


def _bytes(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


def _images(data: Tensor, sides: Tensor) -> Iterator[Image.Image]:
    first = 0
    pixels = data.numpy()
    for width, height in sides.tolist():
        own = pixels[first : first + 3 * width * height].reshape(height, width, 3)
        first += own.size
        yield Image.fromarray(own)
