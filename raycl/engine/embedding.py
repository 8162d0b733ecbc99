"""`embed`: only the embedding of one stream, where a run would do it. Light until needed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raycl.compute.stopping import StopRequest
from raycl.config.backbones import GIVEN, TINY_CLIP, Backbone
from raycl.config.execution import Execution
from raycl.config.loading import check
from raycl.config.places import is_folder
from raycl.config.spec import Spec
from raycl.config.streams import STREAMS, EmbeddingsStream, ImageStream, StreamSpec, parse_stream
from raycl.embedding.identity import EmbeddingIdentity
from raycl.engine.host import Host
from raycl.engine.hosting import check_execution, hosted
from raycl.engine.paths import absolute_backbone, absolute_store, read_by
from raycl.engine.run import default_store
from raycl.errors import ConfigError, DataError
from raycl.observe.events import Event, Observer, Progress, nobody
from raycl.streams.content import with_absolute_paths


@dataclass(frozen=True)
class EmbedJob:
    """All that the embedding needs, small enough to send to another machine."""

    stream: ImageStream
    backbone: Backbone
    execution: Execution
    key: str
    out: str | None = None


@dataclass(frozen=True)
class EmbedResult:
    """What was embedded, under which keys, and what this call had to compute."""

    stream: str
    backbone: str
    weights: list[str]
    images: int
    classes: int
    splits: dict[str, int]
    width: int
    logit_scale: float
    corrupt: list[str]
    warnings: list[str]
    features: str
    text: str
    seconds: float
    images_per_second: float | None
    """Of the images that this call computed; None if it found them all."""
    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)
    out: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def embed(
    stream: StreamSpec | str | Mapping[str, Any],
    backbone: Backbone | str | None = None,
    execution: Execution | None = None,
    observer: Observer = nobody,
    stop: StopRequest | None = None,
    *,
    out: Path | None = None,
) -> EmbedResult:
    """Embed a stream of images, or find that it was done; `out` writes an embedding set.

    A stream may be what `--stream` takes (`"folder:photos"`) or a mapping, a backbone a name.
    """
    stream = _stream_of(stream)
    backbone = Backbone(name=backbone) if isinstance(backbone, str) else backbone
    if not isinstance(backbone, Backbone | None) or not isinstance(execution, Execution | None):
        raise ConfigError(
            "embed takes a stream, then a backbone, then an execution",
            got=f"{type(backbone).__name__}, {type(execution).__name__}",
            do="name them: embed(stream, backbone=…, execution=…)",
        )
    if isinstance(stream, EmbeddingsStream):
        raise ConfigError(
            "these are vectors already", got="embeddings:…", do="name a stream of images"
        )
    backbone = named(backbone or Backbone())
    execution = execution or Execution(store=default_store())
    check_execution(execution)
    if out is not None:
        refuse_name(out)
    job = EmbedJob(
        stream=with_absolute_paths(stream),  # type: ignore[arg-type]
        backbone=absolute_backbone(backbone),
        execution=execution.model_copy(update={"store": absolute_store(execution.store)}),
        key=EmbeddingIdentity.of(stream, backbone).features.key,
        out=None if out is None else str(out.absolute()),
    )
    title = f"embed {stream.kind}"
    return EmbedResult(
        **hosted(
            embed_stream,
            job,
            execution,
            observer,
            stop or StopRequest(),
            title=title,
            reads=read_by(job.stream, job.backbone),
        )
    )


def _stream_of(given: StreamSpec | str | Mapping[str, Any]) -> StreamSpec:
    if isinstance(given, STREAMS):
        return given
    tree = parse_stream(given) if isinstance(given, str) else given
    return check(StreamOnly, {"stream": tree}).stream


class StreamOnly(Spec):
    """A stream alone, to be checked as in an experiment."""

    stream: StreamSpec


def named(backbone: Backbone) -> Backbone:
    """The backbone by name: tiny-clip where none is given."""
    if backbone.name == GIVEN:
        raise ConfigError(f"the backbone `{GIVEN}` embeds nothing", do="name one that does")
    return backbone.model_copy(update={"name": backbone.name or TINY_CLIP})


def refuse_name(out: Path) -> None:
    """An export that could not be written is refused before hours of work."""
    if out.suffix not in (".parquet", ".npz"):
        raise ConfigError(
            "an embedding set is a .parquet or .npz file", got=out.name, do="end --out so"
        )
    if not is_folder(out.absolute().parent):
        raise ConfigError("there is no such folder", got=str(out.parent), do="make it first")


def embed_stream(host: Host, job: EmbedJob) -> dict[str, Any]:
    """The fields of the result, made in whatever process this is called in."""
    from raycl.embedding.export import write_set
    from raycl.engine.data import embed_images
    from raycl.engine.host import open_pool
    from raycl.store.store import Store

    if EmbeddingIdentity.of(job.stream, job.backbone).features.key != job.key:
        raise DataError(
            "the images or weights read here are not those that were asked for",
            do="put the same files at the same paths on every node; then run the command again",
        )
    store = Store.open(job.execution.store, host.emit, stopping=host.stopping)
    began = time.monotonic()
    made = _Count(host)
    with open_pool(job.execution, made) as pool:
        found = embed_images(
            job.stream, job.backbone, job.execution, store=store, pool=pool, host=made
        )
    seconds = time.monotonic() - began
    source = found.source
    if job.out is not None:
        write_set(source, Path(job.out))
    return {
        "stream": source.name,
        "backbone": str(job.backbone.name),
        "weights": list(found.weights),
        "images": len(found.features.rows),
        "classes": source.classes,
        "splits": {
            "train": len(source.train),
            "val": len(source.validation),
            "test": len(source.test),
        },
        "width": source.width,
        "logit_scale": found.text.logit_scale,
        "corrupt": list(found.features.corrupt),
        "warnings": list(source.warnings),
        "features": found.features.key,
        "text": found.text.key,
        "seconds": seconds,
        "images_per_second": made.images / seconds if made.images else None,
        "computed": dict(store.computed),
        "reused": dict(store.reused),
        "out": job.out,
    }


class _Count:
    """Passes events on and counts the images that were embedded just now."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._first: int | None = None
        self.images = 0

    def emit(self, event: Event) -> None:
        if isinstance(event, Progress):
            if self._first is None:
                self._first = event.done
            self.images = event.done - self._first
        self._host.emit(event)

    def stopping(self) -> bool:
        return self._host.stopping()
