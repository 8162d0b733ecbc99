"""A stream: tasks in order, each with its classes and samples, and what all share.

`build` is the one way from a source to tasks. The indices of every split are kept, so that
a result can say exactly what was trained, held out and tested on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from raycl.config.experiment import Experiment
from raycl.config.streams import EmbeddingsStream
from raycl.errors import DataError
from raycl.streams.content import files_of
from raycl.streams.embeddings import read_embeddings
from raycl.streams.opened import OpenedImages
from raycl.streams.source import Ints, Source, Table, concatenate, join, keep_classes
from raycl.streams.splitting import (
    draw_shots,
    hold_out,
    is_by_domain,
    rows_by_class,
    task_classes,
)

Protocol = Literal["class-incremental", "x-tail"]
Decode = Callable[[Ints], Tensor]
"""From rows of an image set to (n, 3, height, width), as the backbone wants them."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """The images that some vectors are of: decoded when asked, and kept by nobody."""

    decode: Decode
    images: Ints
    """Their rows in the image set."""

    def __call__(self, positions: Ints) -> Tensor:
        """(n, 3, height, width) of the images at these positions."""
        return self.decode(self.images[positions])

    @property
    def pictures(self) -> OpenedImages:
        """The image set that `images` are rows of: its pictures as they are, at their own size."""
        pictures: OpenedImages | None = getattr(self.decode, "pictures", None)
        if pictures is None:
            raise DataError("these pixels come without the pictures that they were made of")
        return pictures

    def chunks(self, size: int) -> Iterator[Tensor]:
        """All of them in order, so many at a time."""
        for first in range(0, len(self.images), size):
            yield self.decode(self.images[first : first + size])


@dataclass(frozen=True)
class Samples:
    """Vectors, the data set's own class ids, and the rows they came from."""

    x: Tensor
    y: Tensor
    rows: Ints
    pixels: Pixels | None = None
    """For a method that encodes images itself; None where vectors were given."""

    def __len__(self) -> int:
        return len(self.rows)


def joined(parts: Sequence[Samples]) -> Samples:
    """Samples of one stream, one part after the other."""
    pixels = [part.pixels for part in parts if part.pixels is not None]
    return Samples(
        torch.cat([part.x for part in parts]),
        torch.cat([part.y for part in parts]),
        np.concatenate([part.rows for part in parts]),
        Pixels(pixels[0].decode, np.concatenate([p.images for p in pixels]))
        if len(pixels) == len(parts)
        else None,
    )


@dataclass(frozen=True)
class Task:
    """One step of the stream. `train` is what may be learnt from; where a choice must be
    made first, fit it on `fit` and judge it on `held_out`, never on `test`."""

    index: int
    classes: tuple[int, ...]
    train: Samples
    fit: Samples
    held_out: Samples
    test: Samples

    def without_test(self) -> Task:
        """The same task as a method gets it to learn from."""
        nothing = Samples(self.test.x[:0], self.test.y[:0], self.test.rows[:0])
        return replace(self, test=nothing)


@dataclass(frozen=True)
class Stream:
    """The tasks, and what is known of all classes before any is learnt: names and text."""

    name: str
    protocol: Protocol
    tasks: tuple[Task, ...]
    class_names: tuple[str, ...]
    text: Tensor
    has_text: Tensor
    warnings: tuple[str, ...]

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def seen(self, stage: int) -> tuple[int, ...]:
        """Class ids of the tasks up to and including `stage`, in order of arrival."""
        return tuple(c for task in self.tasks[: stage + 1] for c in task.classes)


def read_source(spec: EmbeddingsStream) -> Source:
    """Given vectors, joined and checked, in the data set's own labels."""
    columns, share = spec.columns, spec.test_fraction
    source = join([read_embeddings(path, columns, share) for path in files_of(spec)])
    if spec.classes == "all":
        return source
    if not source.has_text.any():
        raise DataError(f"no class of {source.name} has a text vector", do="set stream.classes=all")
    return keep_classes(source, np.flatnonzero(source.has_text))


def build(experiment: Experiment, source: Source, decode: Decode | None = None) -> Stream:
    """The source as the stream of an experiment whose seeds are resolved.

    `decode` gives the pixels of a source that was made of images.
    """
    seeds = experiment.seeds
    spec, domains = experiment.stream, len(source.domains)
    parts = task_classes(source.class_domain, domains, spec, seeds["order"])
    cutter = _Cutter(experiment, source, decode)
    return Stream(
        name=source.name,
        protocol="x-tail" if is_by_domain(spec, domains) else "class-incremental",
        tasks=tuple(cutter.task(index, classes) for index, classes in enumerate(parts)),
        class_names=source.class_names,
        text=torch.from_numpy(source.text.copy()),
        has_text=torch.from_numpy(source.has_text.copy()),
        warnings=source.warnings,
    )


class _Cutter:
    """Cuts a source's tables into the samples of a task."""

    def __init__(self, experiment: Experiment, source: Source, decode: Decode | None) -> None:
        self.validation = experiment.validation
        self.decode = decode
        self.shots = experiment.stream.shots
        self.seeds = experiment.seeds
        self.source = source
        self.train = rows_by_class(source.train.y, source.classes)
        self.own_validation = rows_by_class(source.validation.y, source.classes)
        self.own_domains = set(source.class_domain[source.validation.y].tolist())
        self.choosable = concatenate([source.train, source.validation])
        self.test = rows_by_class(source.test.y, source.classes)

    def task(self, index: int, classes: list[int]) -> Task:
        drawn = [draw_shots(self.train[c], c, self.shots, self.seeds["shot"]) for c in classes]
        splits = [self._hold_out(c, rows) for c, rows in zip(classes, drawn, strict=True)]
        if self.validation.judge == "held_out":
            return self._judged_by_validation(index, classes, splits)
        fit = [fit for fit, _ in splits]
        table = self.source.train
        return Task(
            index=index,
            classes=tuple(classes),
            train=self._samples(table, drawn if self.validation.refit else fit),
            fit=self._samples(table, fit),
            held_out=self._samples(self.choosable, [held for _, held in splits]),
            test=self._samples(self.source.test, [self.test[c] for c in classes]),
        )

    def _judged_by_validation(
        self, index: int, classes: list[int], splits: list[tuple[Ints, Ints]]
    ) -> Task:
        """The task with its held-out part for a test. What is left is split again, so that a
        method's own choices are not made on what it is judged by."""
        fraction, seed, table = self.validation.fraction, self.seeds["val"], self.source.train
        left = [fit for fit, _ in splits]
        inner = [
            hold_out(rows, c, fraction, seed, "inner validation")
            for c, rows in zip(classes, left, strict=True)
        ]
        fit = [fit for fit, _ in inner]
        return Task(
            index=index,
            classes=tuple(classes),
            train=self._samples(table, left if self.validation.refit else fit),
            fit=self._samples(table, fit),
            held_out=self._samples(table, [held for _, held in inner]),
            test=self._samples(self.choosable, [held for _, held in splits]),
        )

    def _samples(self, table: Table, parts: list[Ints]) -> Samples:
        rows = np.sort(np.concatenate(parts))
        return samples_of(table, rows, self.decode)

    def _hold_out(self, c: int, rows: Ints) -> tuple[Ints, Ints]:
        """(fit, held out) rows of a class. A domain's own validation set is used as it is
        and never trained on; its rows follow the training table's."""
        if self.source.class_domain[c] in self.own_domains:
            return rows, self.own_validation[c] + len(self.source.train)
        return hold_out(rows, c, self.validation.fraction, self.seeds["val"])


def samples_of(table: Table, rows: Ints, decode: Decode | None = None) -> Samples:
    """These rows of a table."""
    pixels = None
    if decode is not None and table.image is not None:
        pixels = Pixels(decode, table.image[rows])
    return Samples(torch.from_numpy(table.x[rows]), torch.from_numpy(table.y[rows]), rows, pixels)
