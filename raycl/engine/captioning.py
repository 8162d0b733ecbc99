"""`caption`: only the captions of a stream's images, in parallel. Light until needed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raycl.compute.stopping import StopRequest
from raycl.config.backbones import Backbone
from raycl.config.captions import Captioning
from raycl.config.execution import Execution
from raycl.config.places import is_folder
from raycl.config.streams import EmbeddingsStream, ImageFiles, ImageStream, StreamSpec
from raycl.engine.embedding import named
from raycl.engine.host import Host, near_the_gpu, open_pool
from raycl.engine.hosting import check_execution, hosted
from raycl.engine.paths import absolute_backbone, absolute_captions, absolute_store, read_by
from raycl.engine.run import default_store
from raycl.errors import ConfigError, DataError
from raycl.observe.events import Observer, Warned, nobody
from raycl.streams.content import with_absolute_paths

if TYPE_CHECKING:
    from raycl.streams.image_set import ImageSet

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class CaptionJob:
    """All that captioning needs, small enough to send to another machine."""

    stream: ImageStream
    captions: Captioning
    clip: Backbone
    seed: int
    split: Split
    execution: Execution
    out: str | None = None


@dataclass(frozen=True)
class CaptionResult:
    """What was captioned, and what this call had to compute."""

    stream: str
    captioner: str
    classes: int
    images: int
    captions: int
    caption_bytes: int
    """Words, seeds and labels of what is kept."""
    image_bytes: int
    """The captioned images, decoded: height × width × 3."""
    seconds: float
    examples: list[dict[str, Any]]
    """The first caption of each class."""
    corrupt: list[str]
    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)
    out: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def caption(
    stream: StreamSpec,
    captions: Captioning | None = None,
    clip: Backbone | None = None,
    execution: Execution | None = None,
    observer: Observer = nobody,
    stop: StopRequest | None = None,
    *,
    seed: int = 0,
    split: Split = "train",
    out: Path | None = None,
) -> CaptionResult:
    """Caption the images of each class, or find that it was done; `out` is a .parquet file."""
    if isinstance(stream, EmbeddingsStream):
        raise ConfigError(
            "captions are of images, and these are vectors",
            got="embeddings:…",
            do="name a stream of images, or a folder with --images",
        )
    execution = execution or Execution(store=default_store())
    check_execution(execution)
    if out is not None:
        refuse_name(out)
    job = CaptionJob(
        stream=with_absolute_paths(stream),  # type: ignore[arg-type]
        captions=absolute_captions(captions or Captioning()),
        clip=absolute_backbone(named(clip or Backbone())),
        seed=seed,
        split=split,
        execution=execution.model_copy(update={"store": absolute_store(execution.store)}),
        out=None if out is None else str(out.absolute()),
    )
    title = f"caption {stream.kind}"
    return CaptionResult(
        **hosted(
            caption_stream,
            job,
            execution,
            observer,
            stop or StopRequest(),
            title=title,
            reads=read_by(job.stream, job.clip, job.captions),
        )
    )


def refuse_name(out: Path) -> None:
    """An export that could not be written is refused before hours of work."""
    if out.suffix != ".parquet":
        raise ConfigError("captions are written as Parquet", got=out.name, do="end --out so")
    if is_folder(out) or not is_folder(out.absolute().parent):
        raise ConfigError("no such place for a file", got=str(out), do="make its folder first")


def caption_stream(host: Host, job: CaptionJob) -> dict[str, Any]:
    """The fields of the result, made in whatever process this is called in."""
    from raycl.captions.export import captions_table, write_captions
    from raycl.captions.parallel import caption_classes
    from raycl.store.store import Store
    from raycl.streams.opened import OpenedImages

    began = time.monotonic()
    opened = OpenedImages(job.stream)
    images = opened.images
    for warning in images.warnings:
        host.emit(Warned(warning))
    store = Store.open(job.execution.store, host.emit, stopping=host.stopping)
    order = _tasks(images, job)
    with open_pool(job.execution, host) as pool:
        pool, device, resources = near_the_gpu(job.execution, host, pool)
        made = caption_classes(
            opened,
            [(images.class_names[c], _rows(images, c, job.split)) for _, c in order],
            job.captions,
            seed=job.seed,
            clip=job.clip,
            store=store,
            pool=pool,
            observer=host.emit,
            stopping=host.stopping,
            device=device,
            resources=resources,
            skip_corrupt=isinstance(job.stream, ImageFiles) and job.stream.corrupt == "skip",
        )
    if job.out is not None:
        tasks = [task for task, _ in order]
        write_captions(captions_table(list(zip(tasks, made.classes, strict=True))), Path(job.out))
    return {
        "stream": images.name,
        "captioner": job.captions.captioner.kind,
        "classes": len(made.classes),
        "images": sum(c.images for c in made.classes),
        "captions": sum(len(c.captions) for c in made.classes),
        "caption_bytes": sum(c.caption_bytes for c in made.classes),
        "image_bytes": sum(c.image_bytes for c in made.classes),
        "seconds": time.monotonic() - began,
        "examples": [_example(c) for c in made.classes],
        "corrupt": list(made.corrupt),
        "computed": dict(store.computed),
        "reused": dict(store.reused),
        "out": job.out,
    }


def _example(c: Any) -> dict[str, Any]:
    first = c.captions[0] if c.captions else None
    words: Mapping[str, Any] = {"caption": first.text, "score": first.score} if first else {}
    return {"class": c.name, "images": c.images, "captions": len(c.captions), **words}


def _tasks(images: ImageSet, job: CaptionJob) -> list[tuple[int, int]]:
    """(task, class id) of every class, as a run of this stream and seed would meet them."""
    from raycl.streams.splitting import task_classes

    stream = job.stream.with_usual_tasks()
    seed = job.seed if stream.order_seed is None else stream.order_seed
    parts = task_classes(images.class_domain, len(images.domains), stream, seed)
    return [(task, c) for task, classes in enumerate(parts) for c in classes]


def _rows(images: ImageSet, c: int, split: Split) -> list[int]:
    import numpy as np

    found = np.flatnonzero((images.labels == c) & (images.splits == split))
    return [int(row) for row in found]


def refuse_empty(result: CaptionResult, split: str) -> None:
    """A split without an image was surely not meant."""
    if not result.images:
        raise DataError(f"{result.stream} has no image in its split {split!r}", do="name another")
