"""What a run and its parts are called in the store. Needs no torch, opens no data.

A key is made of the experiment's identity, the digests of the data, of the backbone and of
a user's method source. Where and on how many workers it runs is in none of them; and the
probe, which is never trained, is in the result's key alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from raycl.backbones.content import backbone_digests
from raycl.config.backbones import GIVEN
from raycl.config.captions import Captioning
from raycl.config.experiment import Experiment
from raycl.config.methods import UserMethod, models_of
from raycl.config.spec import Json, Spec, described, digest, identity
from raycl.config.streams import OF_TASKS, EmbeddingsStream, StreamSpec
from raycl.config.synthesis import Synthesis
from raycl.errors import ConfigError
from raycl.methods.source_code import SourceCode, read_source_code
from raycl.store.artefact import ArtefactSpec
from raycl.streams.content import content_digests

LOOP_REVISION = 1
"""Raised when the task loop, the splitting or a shared part computes something else."""

METRICS_REVISION = 1
"""Raised when a metric's definition or the result's layout changes; nothing is retrained."""

Dump = Callable[[Spec], dict[str, Json]]


@dataclass(frozen=True)
class RunIdentity:
    """The names of a run's artefacts."""

    experiment: Experiment
    """With all seeds resolved."""
    contents: tuple[str, ...]
    """Digests of the stream's data, in order."""
    code: SourceCode | None = None
    weights: tuple[str, ...] = ()
    """Digests of the backbone; none for given vectors."""
    probe_contents: tuple[str, ...] = ()
    """Digests of the probe's data."""
    models: tuple[str, ...] = ()
    """Digests of what the method captions and draws with."""

    @classmethod
    def of(cls, experiment: Experiment, code: SourceCode | None = None) -> RunIdentity:
        """Reads the digests of data, backbone and method source; all must exist."""
        full = experiment.resolved()
        check_backbone(full)
        if code is None and isinstance(experiment.method, UserMethod):
            code = read_source_code(experiment.method.target)
        return cls(
            full,
            content_digests(full.stream),
            code,
            weights=backbone_digests(full.backbone),
            probe_contents=content_digests(full.probe) if full.probe else (),
            models=_models(full),
        )

    @cached_property
    def parents(self) -> tuple[str, ...]:
        code = (self.code.digest,) if self.code else ()
        return self.contents + self.weights + code + self.models

    @cached_property
    def setting(self) -> str:
        """The digest of all but the seeds: runs that share it may be averaged."""
        full = self.experiment
        stream = full.stream.model_copy(update={"order_seed": None, "shot_seed": None})
        validation = full.validation.model_copy(update={"seed": None})
        seedless = full.model_copy(
            update={"stream": stream, "validation": validation, "init_seed": None, "probe": None}
        )
        parts: list[Json] = [identity(seedless), list(self.parents)]
        return digest([*parts, self._probe_part(identity)] if full.probe else parts)

    @property
    def name(self) -> str:
        """Readable, and made of nothing that is not in the identity."""
        full = self.experiment
        return f"{full.method.kind}-{full.stream.title}-seed{self.experiment.seeds['order']}"

    @property
    def result(self) -> ArtefactSpec:
        return self._spec("result", {"metrics_revision": METRICS_REVISION}, with_probe=True)

    def state(self, task: int) -> ArtefactSpec:
        """What the method keeps after a task."""
        return self._spec("state", {"task": task})

    def predictions(self, stage: int) -> ArtefactSpec:
        """Every test sample as predicted after a task."""
        return self._spec("predictions", {"stage": stage})

    def partial(self, task: int, stage: str) -> ArtefactSpec:
        """A loop within a task, as far as it came."""
        return self._spec("partial", {"task": task, "stage": stage})

    @property
    def zero_shot(self) -> ArtefactSpec:
        """Predictions of the bare backbone: every method on this stream shares them."""
        full = self.experiment
        return ArtefactSpec(
            kind="predictions",
            name=f"zero-shot-{full.stream.title}-seed{full.seeds['order']}",
            identity=self._evaluated(identity),
            described=self._evaluated(described),
            revision=LOOP_REVISION,
            parents=self.contents + self.weights,
        )

    def _evaluated(self, dump: Dump) -> dict[str, Json]:
        """What the predictions of a bare backbone depend on: what is tested, if not the tests."""
        full = self.experiment
        parts: dict[str, Json] = {"stream": dump(full.stream), "backbone": dump(full.backbone)}
        held_out = full.validation.judge == "held_out"
        return {**parts, "validation": dump(full.validation)} if held_out else parts

    def probe(self, stage: int) -> ArtefactSpec:
        """Every test sample of the probe as predicted after a task."""
        return self._spec("probe", {"stage": stage}, with_probe=True)

    @property
    def probe_zero_shot(self) -> ArtefactSpec:
        """The probe as the bare backbone predicts it: every method on this stream shares it."""
        spec = self.zero_shot
        return ArtefactSpec(
            kind="probe",
            name=spec.name,
            identity={**spec.identity, "probe": self._probe_part(identity)},
            described={**spec.described, "probe": self._probe_part(described)},
            revision=LOOP_REVISION,
            parents=spec.parents,
        )

    def _spec(self, kind: str, part: dict[str, Json], *, with_probe: bool = False) -> ArtefactSpec:
        learnt = self.experiment.model_copy(update={"probe": None})
        probed = with_probe and self.experiment.probe is not None

        def named(dump: Dump) -> dict[str, Json]:
            probe: dict[str, Json] = {"probe": self._probe_part(dump)} if probed else {}
            return {"experiment": dump(learnt), **part, **probe}

        return ArtefactSpec(
            kind=kind,
            name=self.name,
            identity=named(identity),
            described=named(described),
            revision=LOOP_REVISION,
            parents=self.parents,
        )

    def _probe_part(self, dump: Dump) -> Json:
        """The probe by its images or vectors and their content: it has neither tasks nor seeds."""
        assert self.experiment.probe is not None
        bare = self.experiment.probe.model_copy(update=OF_TASKS)
        return {"stream": dump(bare), "contents": list(self.probe_contents)}


def _models(experiment: Experiment) -> tuple[str, ...]:
    """Of the models that a method names besides the backbone; their names are in no key."""
    models = models_of(experiment.method)
    if not models or experiment.backbone_name == GIVEN:
        return ()  # a method that needs images refuses vectors in its own words
    from raycl.captions.identity import model_digests
    from raycl.synthesis.models import model_digest

    clip = experiment.backbone.model_copy(update={"name": experiment.backbone_name})
    found: list[str] = []
    for model in models:
        match model:
            case Captioning():
                found += model_digests(model, clip)
            case Synthesis():
                found.append(model_digest(model))
    return tuple(found)


def check_backbone(experiment: Experiment) -> None:
    """Refuse vectors that are to be embedded, and images that nothing shall embed."""
    given = experiment.backbone_name == GIVEN
    streams: list[tuple[str, StreamSpec | None]] = [
        ("stream", experiment.stream),
        ("probe", experiment.probe),
    ]
    for role, spec in streams:
        if spec is not None and isinstance(spec, EmbeddingsStream) != given:
            raise _mismatch(role, spec, experiment.backbone_name)


def _mismatch(role: str, spec: StreamSpec, backbone: str) -> ConfigError:
    if backbone == GIVEN:
        what = f"the {role} holds images, and the backbone `{GIVEN}` embeds none"
        do = "leave --backbone out, or name one that embeds, such as tiny-clip"
        if role == "probe":
            do = "a stream of given vectors takes a probe of vectors: embeddings:FILE"
    else:
        what = f"the {role} holds vectors already, which no other backbone can embed"
        do = f"leave --backbone out, or set it to {GIVEN}"
        if role == "probe":
            do = "a stream of images takes a probe of images, such as glyphs or folder:PATH"
    return ConfigError(what, got=f"{role}.kind={spec.kind}, backbone.name={backbone}", do=do)
