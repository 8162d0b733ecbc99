"""Writes down the defaults and revision of every spec, for the test that guards them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raycl.config.backbones import Backbone
from raycl.config.generators import GENERATORS
from raycl.config.methods import BUILT_IN, PROMPTS, Align, AlignPrompts, UserMethod
from raycl.config.spec import Spec
from raycl.config.streams import STREAMS, Validation
from raycl.config.synthesis import Synthesis

SPECS: tuple[type[Spec], ...] = (
    *BUILT_IN,
    UserMethod,
    *PROMPTS,
    *STREAMS,
    *GENERATORS,
    Align,
    AlignPrompts,
    Validation,
    Backbone,
    Synthesis,
)


def current() -> dict[str, Any]:
    """Every spec's revision and the defaults of its fields."""
    return {spec.__name__: _one(spec) for spec in SPECS}


def _one(spec: type[Spec]) -> dict[str, Any]:
    defaults = {
        name: json.loads(
            json.dumps(_plain(field.get_default(call_default_factory=True, validated_data={})))
        )
        for name, field in spec.model_fields.items()
        if not field.is_required()
    }
    return {"revision": spec.revision, "defaults": defaults}


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Spec) else value


if __name__ == "__main__":
    place = Path(__file__).parent / "frozen_defaults.json"
    place.write_text(json.dumps(current(), indent=1, sort_keys=True) + "\n")
