"""`synth`: only images from prompts, over the pool, into a folder. Light until needed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raycl.compute.stopping import StopRequest
from raycl.config.execution import Execution
from raycl.config.loading import check, merge
from raycl.config.places import at_home, is_folder, is_there
from raycl.config.synthesis import TINY_SD, Synthesis, preset
from raycl.engine.host import Host, near_the_gpu, open_pool
from raycl.engine.hosting import check_execution, hosted
from raycl.engine.paths import absolute_store, absolute_synthesis, read_by
from raycl.engine.run import default_store
from raycl.errors import ConfigError, DataError
from raycl.observe.events import Observer, nobody
from raycl.synthesis.models import model_digest
from raycl.synthesis.prompts import Asked, read_prompts


@dataclass(frozen=True)
class SynthJob:
    """All that a synthesis needs, small enough to send to another machine."""

    asked: Asked
    synthesis: Synthesis
    model: str
    """The digest of the model that is meant."""
    execution: Execution
    out: str


@dataclass(frozen=True)
class SynthResult:
    """What was made, and what this call had to compute."""

    model: str
    prompts: int
    images: int
    left_out: int
    painted_again: int
    prompts_cut: int
    painted: int
    """Images that this call painted; the others were found in the store."""
    seconds: float
    images_per_second: float | None
    """Of the images that this call painted; None if it found them all."""
    out: str
    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def synthesis_of(
    model: str = TINY_SD, name: str = "fast", settings: Sequence[Mapping[str, Any]] = ()
) -> Synthesis:
    """The spec of a preset for a model, with options on top."""
    return check(Synthesis, merge([preset(name, model), *settings]))


def synth(
    prompts: Path,
    synthesis: Synthesis | None = None,
    execution: Execution | None = None,
    observer: Observer = nobody,
    stop: StopRequest | None = None,
    *,
    out: Path,
    each: int = 1,
    seed: int = 0,
) -> SynthResult:
    """Make `each` images of every prompt in a file, or find that it was done, into a folder."""
    from raycl.synthesis.export import refuse_columns, refuse_unwritable

    synthesis = synthesis or Synthesis()
    execution = execution or Execution(store=default_store())
    check_execution(execution)
    if is_there(out) and not is_folder(out):
        raise ConfigError("--out is a folder", got=str(out), do="name another")
    asked = read_prompts(prompts, seed).times(each)
    refuse_columns(list(asked.columns))
    job = SynthJob(
        asked=asked,
        synthesis=absolute_synthesis(synthesis),
        model=model_digest(synthesis),
        execution=execution.model_copy(update={"store": absolute_store(execution.store)}),
        out=str(at_home(out).absolute()),
    )
    refuse_unwritable(Path(job.out))
    return SynthResult(
        **hosted(
            synth_prompts,
            job,
            execution,
            observer,
            stop or StopRequest(),
            title="synth",
            reads=read_by(job.synthesis),
        )
    )


def synth_prompts(host: Host, job: SynthJob) -> dict[str, Any]:
    """The fields of the result, made in whatever process this is called in."""
    from raycl.store.store import Store
    from raycl.synthesis.export import write_images
    from raycl.synthesis.synthesise import synthesise

    if model_digest(job.synthesis) != job.model:
        raise DataError(
            "the model read here is not the one that was asked for",
            do="put the same files at the same path on every node",
        )
    began = time.monotonic()
    store = Store.open(job.execution.store, stopping=host.stopping)
    with open_pool(job.execution, host) as pool:
        pool, device, worker = near_the_gpu(job.execution, host, pool)
        images = synthesise(
            job.asked.prompts,
            job.synthesis,
            store=store,
            pool=pool,
            observer=host.emit,
            stopping=host.stopping,
            device=device,
            resources=worker,
        )
    write_images(images, job.asked.columns, Path(job.out))
    return {
        "model": job.synthesis.model,
        "prompts": len(images),
        "images": len(images) - len(images.left_out),
        "left_out": len(images.left_out),
        "painted_again": sum(note["tries"] - 1 for note in images.notes),
        "prompts_cut": sum(note["tokens_cut"] > 0 for note in images.notes),
        "painted": images.computed,
        "seconds": time.monotonic() - began,
        "images_per_second": images.computed / images.seconds if images.computed else None,
        "out": job.out,
        "computed": dict(store.computed),
        "reused": dict(store.reused),
    }
