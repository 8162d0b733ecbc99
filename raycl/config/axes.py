"""One axis of a search space: which values an option may take, and when it is there at all.

    method.align.lr: {loguniform: [1e-3, 1e-1]}
    method.generator.hidden: {choice: [128, 512], when: {method.generator.kind: vae}}

A bare value is a constant. Checked without torch or Ray; what a sampler makes of it is its own.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from raycl.config.spec import Spec, canonical

DOMAINS = ("uniform", "loguniform", "int", "lograndint", "choice", "constant")
_KNOWN = ", ".join(DOMAINS)

_INSIDE = 0.318
"""A place within a range that is no whole number, so that a check tries one."""


class Axis(Spec):
    """Exactly one domain, and the conditions under which it is asked."""

    model_config = ConfigDict(serialize_by_alias=True)

    uniform: tuple[float, float] | None = None
    """Any number between two."""
    loguniform: tuple[float, float] | None = None
    """The same, evenly in its logarithm."""
    whole: tuple[int, int] | None = Field(None, alias="int")
    """Whole numbers from the first to the last."""
    lograndint: tuple[int, int] | None = None
    """The same, evenly in the logarithm."""
    choice: tuple[JsonValue, ...] | None = None
    """One of these values, of any type: numbers, words, whole mappings."""
    constant: JsonValue = None
    """Always this value."""
    when: dict[str, JsonValue] = Field(default_factory=dict)
    """Other axes and the value (or list of values) that each must have."""

    @model_validator(mode="before")
    @classmethod
    def _one_domain(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            given = [name for name in DOMAINS if name in values]
            for name in values:
                if name not in (*DOMAINS, "when"):
                    close = difflib.get_close_matches(str(name), DOMAINS, n=1)
                    hint = f"did you mean {close[0]!r}? " if close else ""
                    raise ValueError(f"no domain is named {name!r}; {hint}(known: {_KNOWN})")
            if len(given) != 1:
                raise ValueError(f"an axis has one of {_KNOWN}")
        return values

    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As a file says it, so that it can be read again."""
        given = {"int" if name == "whole" else name for name in self.model_fields_set}
        return {name: value for name, value in dump(self).items() if name in given and value != {}}

    @field_validator("uniform", "loguniform", "whole", "lograndint")
    @classmethod
    def _rises(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends is not None and not ends[0] < ends[1]:
            raise ValueError("a range begins below its end")
        return ends

    @field_validator("loguniform", "lograndint")
    @classmethod
    def _has_a_logarithm(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends is not None and ends[0] <= 0:
            raise ValueError("a logarithmic range begins above zero")
        return ends

    @field_validator("choice")
    @classmethod
    def _differ(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if values is not None and not values:
            raise ValueError("there is nothing to choose from")
        if values is not None and len({canonical(value) for value in values}) < len(values):
            raise ValueError("a value is given twice")
        return values

    @property
    def domain(self) -> Literal["float", "int", "choice", "constant"]:
        """What kind of value it has."""
        if self.uniform or self.loguniform:
            return "float"
        if self.whole or self.lograndint:
            return "int"
        return "constant" if self.choice is None else "choice"

    @property
    def ends(self) -> tuple[float, float]:
        """Of a range."""
        found = self.uniform or self.loguniform or self.whole or self.lograndint
        assert found is not None
        return found

    @property
    def logarithmic(self) -> bool:
        return bool(self.loguniform or self.lograndint)

    @property
    def options(self) -> tuple[Any, ...]:
        """The values of a choice or a constant."""
        return (self.constant,) if self.choice is None else self.choice

    def tried(self) -> tuple[Any, ...]:
        """Values that stand for all of them when the axis is checked."""
        match self.domain:
            case "float":
                low, high = self.ends
                return low, low + _INSIDE * (high - low), high
            case "int":
                return self.ends
            case _:
                return self.options

    def has(self, value: Any) -> bool:
        """Whether a value lies on the axis."""
        match self.domain:
            case "float" | "int":
                number = isinstance(value, int | float) and not isinstance(value, bool)
                low, high = self.ends
                whole = self.domain == "float" or float(value).is_integer() if number else False
                return number and math.isfinite(value) and low <= value <= high and whole
            case _:
                return any(canonical(value) == canonical(option) for option in self.options)


def allowed(condition: JsonValue) -> list[JsonValue]:
    """The values that a condition lets pass: the one, or those of the list."""
    return condition if isinstance(condition, list) else [condition]


def meets(condition: JsonValue, value: Any) -> bool:
    """Whether a value is one of those."""
    return any(canonical(value) == canonical(one) for one in allowed(condition))
