"""`Experiment`: everything that changes numbers, and nothing else.

It is the only thing that is hashed. Where it runs, on how many workers and into which
store is an `Execution`, which no key ever sees. Computing a key needs no torch.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, ClassVar

from pydantic import Field
from pydantic.fields import FieldInfo

from raycl.config.backbones import GIVEN, TINY_CLIP, Backbone
from raycl.config.methods import MethodSpec, UserMethod
from raycl.config.spec import Json, NotIdentity, Spec
from raycl.config.streams import EmbeddingsStream, StreamSpec, Validation


class Experiment(Spec):
    """One method on one stream with one backbone and one set of seeds."""

    revision: ClassVar[int] = 2

    method: MethodSpec
    stream: StreamSpec
    backbone: Backbone = Backbone()
    validation: Validation = Validation()
    seed: int = NotIdentity(0, ge=0, lt=2**32)
    """Sets each of the four seeds that is left null; itself in no key."""
    init_seed: int | None = Field(None, ge=0)
    probe: StreamSpec | None = None
    """Evaluated after every task and never trained."""

    def resolved(self) -> Experiment:
        """The same experiment with all four seeds and the backbone written out."""
        stream = self.stream.with_usual_tasks().model_copy(
            update={
                "order_seed": _first(self.stream.order_seed, self.seed),
                "shot_seed": _first(self.stream.shot_seed, self.seed),
            }
        )
        validation = self.validation.model_copy(
            update={"seed": _first(self.validation.seed, self.seed)}
        )
        return self.model_copy(
            update={
                "stream": stream,
                "validation": validation,
                "backbone": self.backbone.model_copy(update={"name": self.backbone_name}),
                "init_seed": _first(self.init_seed, self.seed),
            }
        )

    @property
    def backbone_name(self) -> str:
        """The backbone by name, with the default resolved."""
        has_vectors = isinstance(self.stream, EmbeddingsStream)
        return self.backbone.name or (GIVEN if has_vectors else TINY_CLIP)

    @property
    def seeds(self) -> dict[str, int]:
        """The four seeds by name."""
        full = self.resolved()
        assert full.stream.order_seed is not None and full.stream.shot_seed is not None
        assert full.validation.seed is not None and full.init_seed is not None
        return {
            "order": full.stream.order_seed,
            "shot": full.stream.shot_seed,
            "val": full.validation.seed,
            "init": full.init_seed,
        }

    @property
    def method_label(self) -> str:
        """`finetune(loss=local)`: what differs from its default, but stream, backbone, seeds."""
        changed = {
            **_changed(self.method),
            **_changed(self.backbone.model_copy(update={"name": None}), "backbone."),
            **_changed(self.validation.model_copy(update={"seed": None}), "validation."),
        }
        options = [f"{name}={_short(value)}" for name, value in changed.items()]
        name = _name(self.method)
        return f"{name}({', '.join(options)})" if options else name


def _name(spec: Spec) -> str:
    if not isinstance(spec, UserMethod):
        return str(getattr(spec, "kind", type(spec).__name__))
    place, _, class_name = spec.target.partition(":")
    return class_name or PurePath(place).stem


def _changed(spec: Spec, prefix: str = "") -> dict[str, Json]:
    out: dict[str, Json] = {}
    for name, field in type(spec).model_fields.items():
        value = getattr(spec, name)
        if isinstance(value, Spec):
            kind = getattr(value, "kind", None)
            if kind != getattr(_default(field), "kind", None):
                out[prefix + name] = kind
            out |= _changed(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            out |= {prefix + key: inner for key, inner in value.items()}
        elif name not in ("kind", "target") and value != _default(field):
            out[prefix + name] = value
    return out


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _short(value: Json) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _first(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
