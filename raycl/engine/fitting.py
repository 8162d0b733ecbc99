"""`fit`: only the generators of a set of vectors, in parallel. Light until needed."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from raycl.compute.stopping import StopRequest
from raycl.config.execution import Execution
from raycl.config.generators import GENERATORS, GeneratorSpec, parse_generator
from raycl.config.loading import check, merge, suggest
from raycl.config.methods import kind_of
from raycl.config.places import is_folder, is_there
from raycl.config.spec import Spec
from raycl.config.streams import EmbeddingsStream
from raycl.engine.host import Host, near_the_gpu, open_pool
from raycl.engine.hosting import check_execution, hosted
from raycl.engine.paths import absolute_store, read_by
from raycl.engine.run import default_store
from raycl.errors import ConfigError
from raycl.observe.events import Observer, Warned, nobody
from raycl.streams.content import with_absolute_paths

if TYPE_CHECKING:
    from raycl.compute.pool import Pool
    from raycl.fitting.fitted import Fitted
    from raycl.fitting.parallel import Vectors


@dataclass(frozen=True)
class FitJob:
    """All that a fit needs, small enough to send to another machine."""

    stream: EmbeddingsStream
    generator: GeneratorSpec
    seed: int
    classes: tuple[str, ...]
    """Names; none means all."""
    execution: Execution
    out: str | None = None


@dataclass(frozen=True)
class FitResult:
    """What was fitted, and what this call had to compute."""

    generator: str
    classes: int
    width: int
    seconds: float
    bytes: float
    notes: list[dict[str, Any]]
    """What is known of each class."""
    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)
    out: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class _Asked(Spec):
    generator: GeneratorSpec


def generator_of(text: str, settings: Sequence[Mapping[str, Any]] = ()) -> GeneratorSpec:
    """The spec that a user wrote as `vae` or `gmm:8`, with options on top."""
    tree = merge([parse_generator(text), *settings])
    kinds = [kind_of(spec) for spec in GENERATORS]
    if tree.get("kind") not in kinds:
        raise ConfigError(
            f"unknown generator {tree.get('kind')!r}", do=suggest(str(tree.get("kind")), kinds)
        )
    return check(_Asked, {"generator": tree}, strip=("generator",)).generator


def fit(
    stream: EmbeddingsStream,
    generator: GeneratorSpec,
    execution: Execution | None = None,
    observer: Observer = nobody,
    stop: StopRequest | None = None,
    *,
    seed: int = 0,
    classes: Sequence[str] = (),
    out: Path | None = None,
) -> FitResult:
    """Fit the training vectors of each class, or find that it was done; `out` is a folder
    that gets all of them in one file."""
    execution = execution or Execution(store=default_store())
    check_execution(execution)
    if out is not None:
        refuse_folder(out)
    job = FitJob(
        stream=with_absolute_paths(stream),  # type: ignore[arg-type]
        generator=generator,
        seed=seed,
        classes=tuple(classes),
        execution=execution.model_copy(update={"store": absolute_store(execution.store)}),
        out=None if out is None else str(out.absolute()),
    )
    sets = "+".join(PurePath(path).stem for path in stream.paths)
    title = f"fit {generator.kind} on {sets}"
    return FitResult(
        **hosted(
            fit_stream,
            job,
            execution,
            observer,
            stop or StopRequest(),
            title=title,
            reads=read_by(job.stream),
        )
    )


def refuse_folder(out: Path) -> None:
    """What could not be written is refused before hours of work."""
    if is_there(out) and not is_folder(out):
        raise ConfigError("--out is a folder", got=str(out), do="name another")
    if not is_folder(out.absolute().parent):
        raise ConfigError("there is no such folder", got=str(out.parent), do="make it first")


def fit_stream(host: Host, job: FitJob) -> dict[str, Any]:
    """The fields of the result, made in whatever process this is called in."""
    from raycl.fitting.export import write_bank
    from raycl.store.store import Store

    began = time.monotonic()
    vectors = _vectors(job, host)
    store = Store.open(job.execution.store, stopping=host.stopping)
    with open_pool(job.execution, host) as pool:
        fitted = _fit(vectors, job.generator, job.seed, job.execution, host, store, pool)
    if job.out is not None:
        write_bank(fitted, Path(job.out))
    return {
        "generator": job.generator.kind,
        "classes": len(fitted.classes),
        "width": next(iter(vectors.values())).shape[1],
        "seconds": time.monotonic() - began,
        "bytes": fitted.bytes,
        "notes": [asdict(notes) for notes in fitted.notes],
        "computed": dict(store.computed),
        "reused": dict(store.reused),
        "out": job.out,
    }


def _fit(
    vectors: Mapping[str, Vectors],
    generator: GeneratorSpec,
    seed: int,
    execution: Execution,
    host: Host,
    store: Any,
    pool: Pool,
) -> Fitted:
    """Fit where the GPU is: with the workers if they have one, else here if we have one."""
    from raycl.fitting.parallel import fit_generators as fit_over

    pool, device, worker = near_the_gpu(execution, host, pool)
    return fit_over(
        vectors,
        generator,
        seed=seed,
        store=store,
        pool=pool,
        observer=host.emit,
        stopping=host.stopping,
        device=device,
        resources=worker,
    )


def _vectors(job: FitJob, host: Host) -> dict[str, Any]:
    """The training vectors of the classes that are asked for, by distinct names."""
    from raycl.fitting.identity import distinct_names
    from raycl.streams.splitting import rows_by_class
    from raycl.streams.stream import read_source

    source = read_source(job.stream)
    for warning in source.warnings:
        host.emit(Warned(warning))
    names = distinct_names(source.class_names, source.class_domain.tolist(), source.domains)
    rows = rows_by_class(source.train.y, source.classes)
    known = {name: rows[c] for c, name in enumerate(names)}
    asked = dict.fromkeys(job.classes or names)
    for name in asked:
        if name not in known:
            close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            raise ConfigError(
                f"no class is named {name!r}",
                do=f"did you mean {' or '.join(map(repr, close))}?"
                if close
                else f"{source.name} has {len(names)} classes, e.g. {names[0]!r}",
            )
    # A class without a training sample is told of as a warning of the source.
    kept = [name for name in asked if job.classes or len(known[name])]
    return {name: source.train.x[known[name]] for name in kept}


def fit_generators(
    classes: Mapping[str, Vectors],
    generator: GeneratorSpec | str = "vae",
    execution: Execution | None = None,
    observer: Observer = nobody,
    stop: StopRequest | None = None,
    *,
    seed: int = 0,
) -> Fitted:
    """A generator for each of these classes: by name, (n, d) arrays or tensors of floats.

    With the Ray pool, workers on this machine or on a cluster fit them; the vectors are sent
    to them from this process.
    """
    from raycl.store.store import Store

    execution = execution or Execution(store=default_store())
    check_execution(execution)
    spec = generator_of(generator) if isinstance(generator, str) else generator

    def fit_here(host: Host, execution: Execution) -> Fitted:
        store = Store.open(absolute_store(execution.store), stopping=host.stopping)
        with _connected(execution), open_pool(execution, host) as pool:
            return _fit(classes, spec, seed, execution, host, store, pool)

    # In this process, which has the vectors, whatever the pool.
    here = Execution()
    return hosted(  # type: ignore[no-any-return]
        fit_here,
        execution,
        here,
        observer,
        stop or StopRequest(),
        title=f"fit {spec.kind} to {len(classes)} classes",
        store=execution.store,
    )


@contextmanager
def _connected(execution: Execution) -> Iterator[None]:
    if execution.pool == "local":
        yield
        return
    from raycl.compute.ray_session import connect

    cpus = math.ceil(execution.workers * execution.worker.cpus)
    with connect(execution.address, num_cpus=cpus):
        yield
