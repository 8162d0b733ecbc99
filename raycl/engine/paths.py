"""The paths that a job names: made absolute before it leaves, and asked for on every node.

An actor works in another folder, maybe on another machine. Imports neither torch nor Ray.
"""

from __future__ import annotations

from pathlib import Path

from raycl.backbones.files import LOCAL_DIR, WEIGHT_SUFFIXES
from raycl.config.backbones import Backbone
from raycl.config.captions import BLIPCaptioner, Captioning
from raycl.config.clts import CLTS
from raycl.config.experiment import Experiment
from raycl.config.methods import MethodSpec, models_of
from raycl.config.places import at_home, expanded, is_folder
from raycl.config.streams import EmbeddingsStream, FolderStream, HubStream, NamedStream, StreamSpec
from raycl.config.synthesis import TINY_SD, Synthesis
from raycl.streams.content import with_absolute_paths as absolute_stream
from raycl.streams.sources.placing import find

Named = StreamSpec | Backbone | Captioning | Synthesis
"""What may name paths."""


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
    moved = {
        "synthesis": absolute_synthesis(method.synthesis),
        "captions": absolute_captions(method.captions),
    }
    return method.model_copy(update=moved)


def absolute_synthesis(synthesis: Synthesis) -> Synthesis:
    """The same with the folder of its model made absolute."""
    if synthesis.model == TINY_SD:
        return synthesis
    return synthesis.model_copy(update={"model": _folder(synthesis.model)})


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
    place = _weights(backbone)
    if not place:
        return backbone
    scheme = (backbone.name or "").partition(":")[0]
    return backbone.model_copy(update={"name": f"{scheme}:{expanded(place).absolute()}"})


def _weights(backbone: Backbone) -> str:
    """The path of its weights, if it is named by one."""
    scheme, _, place = (backbone.name or "").partition(":")
    return place if f"{scheme}:" == LOCAL_DIR or place.endswith(WEIGHT_SUFFIXES) else ""


def absolute_store(uri: str) -> str:
    """A local path made absolute; any other address as it is."""
    return uri if "://" in uri else str(at_home(uri).absolute())


def read_for(experiment: Experiment) -> tuple[str, ...]:
    """The paths of all that a run reads, once they are absolute."""
    asked = (experiment.stream, experiment.probe, experiment.backbone)
    return read_by(*asked, *models_of(experiment.method))


def read_by(*parts: Named | None) -> tuple[str, ...]:
    """The paths of data, weights and models that these name, once they are absolute."""
    return tuple(dict.fromkeys(path for part in parts if part for path in _paths(part)))


def _paths(part: Named) -> tuple[str, ...]:
    match part:
        case EmbeddingsStream() | FolderStream() | HubStream():
            return part.paths
        case NamedStream():
            return tuple(str(find(name, part.root).folder) for name in part.names)
        case Backbone():
            return tuple(filter(None, [_weights(part)]))
        case Captioning(captioner=BLIPCaptioner(model=model)) | Synthesis(model=model):
            # A repository on a hub has the same name everywhere.
            return (model,) if is_folder(Path(model)) else ()
        case _:
            return ()
