"""Where the work of a command is done: in this process, or in one supervised actor.

The paths of a job are made absolute before it leaves, because an actor works in another
folder. Light: Ray is imported only when it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from raycl.backbones.files import LOCAL_DIR, WEIGHT_SUFFIXES
from raycl.compute.learner import Target
from raycl.compute.local_learner import host_in_process
from raycl.compute.stopping import StopRequest, catching_signals
from raycl.config.backbones import Backbone
from raycl.config.captions import BLIPCaptioner, Captioning
from raycl.config.clts import CLTS
from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.config.methods import MethodSpec
from raycl.config.places import at_home, expanded, is_folder
from raycl.config.streams import EmbeddingsStream, FolderStream, StreamSpec
from raycl.config.synthesis import TINY_SD
from raycl.engine.nodes import check_from_others
from raycl.errors import ConfigError, InterruptedByUser, StoppedError
from raycl.observe.events import Observer
from raycl.store.location import open_location
from raycl.store.pulses import beating
from raycl.streams.content import with_absolute_paths as absolute_stream

CONTINUE = "run the same command again to continue"


def hosted(
    target: Target,
    job: Any,
    execution: Execution,
    observer: Observer,
    stop: StopRequest,
    *,
    title: str,
    reads: Sequence[str] = (),
    store: str | None = None,
) -> Any:
    """The target's value; a `StoppedError` once it was asked to stop and has saved.

    What it is doing meanwhile is told under `title` in the store, by default the execution's.
    `reads`: absolute paths that every node of a cluster must have.
    """
    place = open_location(absolute_store(store or execution.store))
    with catching_signals(stop), beating(place, title, observer) as tell:
        try:
            return _hosted(target, job, execution, tell, stop, reads)
        except StoppedError as error:
            if stop.signal_name == "SIGINT":
                raise InterruptedByUser(f"interrupted: {error.what}", do=CONTINUE) from None
            raise StoppedError(error.what, do=CONTINUE) from None


def _hosted(
    target: Target,
    job: Any,
    execution: Execution,
    observer: Observer,
    stop: StopRequest,
    reads: Sequence[str],
) -> Any:
    if execution.pool == "local":
        return host_in_process(target, job, observer=observer, stop=stop)
    from raycl.compute.ray_learner import host
    from raycl.compute.ray_session import connect

    learner = execution.learner
    cpus = math.ceil(execution.workers * execution.worker.cpus + learner.cpus)
    with connect(execution.address, num_cpus=cpus) as session:
        if execution.address:
            # A folder that only some nodes see would cost hours before it fails.
            check_from_others(absolute_store(execution.store), reads)
        return host(
            target,
            job,
            session=session,
            cpus=learner.cpus,
            gpus=learner.gpus,
            observer=observer,
            stop=stop,
        )


def read_by(*parts: StreamSpec | Backbone | None) -> tuple[str, ...]:
    """The paths of data and weights that these name, once they are absolute."""
    found: list[str] = []
    for part in parts:
        if isinstance(part, EmbeddingsStream | FolderStream):
            found += part.paths
        elif isinstance(part, Backbone) and (place := _path_of(part)):
            found.append(place)
    return tuple(dict.fromkeys(found))


def check_execution(execution: Execution) -> None:
    """Refuse what cannot be meant together."""
    if execution.pool == "local" and (execution.address or execution.workers > 1):
        raise ConfigError(
            "the local pool works in this process only",
            got=f"address={execution.address}, workers={execution.workers}",
            do="add --pool ray",
        )


def with_absolute_paths(experiment: Experiment) -> Experiment:
    """The same experiment for a process that works in another folder."""
    probe = experiment.probe
    return experiment.model_copy(
        update={
            "stream": absolute_stream(experiment.stream),
            "probe": None if probe is None else absolute_stream(probe),
            "backbone": absolute_backbone(experiment.backbone),
            "method": absolute_method(experiment.method),
        }
    )


def absolute_method(method: MethodSpec) -> MethodSpec:
    """The method with the folders of its models made absolute, where they are named by one."""
    if not isinstance(method, CLTS):
        return method
    synthesis = method.synthesis
    if synthesis.model != TINY_SD:
        synthesis = synthesis.model_copy(update={"model": _folder(synthesis.model)})
    moved = {"synthesis": synthesis, "captions": absolute_captions(method.captions)}
    return method.model_copy(update=moved)


def absolute_captions(captions: Captioning) -> Captioning:
    """The same with the folder of a captioning model made absolute."""
    captioner = captions.captioner
    if not isinstance(captioner, BLIPCaptioner):
        return captions
    moved = captioner.model_copy(update={"model": _folder(captioner.model)})
    return captions.model_copy(update={"captioner": moved})


def _folder(name: str) -> str:
    """The absolute path of a folder of that name; any other name as it is."""
    place = expanded(name)
    return str(place.absolute()) if is_folder(place) else name


def absolute_backbone(backbone: Backbone) -> Backbone:
    """The backbone with the path of its weights made absolute, if it is named by one."""
    place = _path_of(backbone)
    if not place:
        return backbone
    scheme = (backbone.name or "").partition(":")[0]
    return backbone.model_copy(update={"name": f"{scheme}:{expanded(place).absolute()}"})


def _path_of(backbone: Backbone) -> str:
    """The path of its weights, if it is named by one."""
    scheme, _, place = (backbone.name or "").partition(":")
    return place if f"{scheme}:" == LOCAL_DIR or place.endswith(WEIGHT_SUFFIXES) else ""


def absolute_store(uri: str) -> str:
    """A local path made absolute; any other address as it is."""
    return uri if "://" in uri else str(at_home(uri).absolute())
