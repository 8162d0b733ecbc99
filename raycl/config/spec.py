"""The base of every frozen spec, and how a spec becomes a key.

Guarantees: a spec is immutable, refuses unknown fields, and its identity depends only
on fields that change numbers. Fields at their default stay out of the identity, the
union tag `kind` and the revision never do; so adding a field moves no key, and changing
a default must come with a bumped `revision` (a test holds the frozen defaults).
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

DIGEST_LENGTH = 32
"""Hex digits of a digest: 128 bits, far beyond accident."""


class Spec(BaseModel):
    """A frozen description of something, which may enter a key."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, values: Any) -> Any:
        # Python takes true for 1, and YAML takes a bare `yes` or `on` for true.
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field and bool not in _members(field.annotation):
                raise ValueError(f"{name} is not a question of yes or no")
        return values

    revision: ClassVar[int] = 1
    """Raised when a default or the meaning of a field changes what is computed."""


def _members(annotation: Any) -> tuple[Any, ...]:
    return annotation, *get_args(annotation)


def NotIdentity(default: Any = ..., **extra: Any) -> Any:  # noqa: N802 - reads as Field
    """A field that says where or how, never what: it stays out of every key."""
    return Field(default, json_schema_extra={"identity": False}, **extra)


def _is_identity(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("identity") is False)


def identity(spec: Spec) -> dict[str, Json]:
    """What enters the key: the tag, the revision and all that differs from a default."""
    return _dump(spec, every_field=False)


def described(spec: Spec) -> dict[str, Json]:
    """The identity with the defaults written out, as kept in a record."""
    return _dump(spec, every_field=True)


def _dump(spec: Spec, *, every_field: bool) -> dict[str, Json]:
    out: dict[str, Json] = {"revision": type(spec).revision}
    for name, field in type(spec).model_fields.items():
        if not _is_identity(field):
            continue
        value = getattr(spec, name)
        default = field.get_default(call_default_factory=True, validated_data={})
        if every_field or name == "kind" or field.is_required() or not _same(value, default):
            out[name] = _plain(value, every_field=every_field)
    return out


def _same(value: Any, default: Any) -> bool:
    """Whether a field means its default; what is no identity may differ."""
    if isinstance(value, Spec) and type(value) is type(default):
        return identity(value) == identity(default)
    return bool(value == default)


def _plain(value: Any, *, every_field: bool) -> Json:
    if isinstance(value, Spec):
        return _dump(value, every_field=every_field)
    if isinstance(value, dict):
        return {_text_key(k): _plain(v, every_field=every_field) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, every_field=every_field) for v in value]
    return as_json(value)


def as_json(value: Any) -> Json:
    """The value, if JSON can carry it exactly; an error otherwise, never a guess."""
    if value is None or isinstance(value, bool | str):
        return value
    if type(value) is int:
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise TypeError(f"a key cannot hold the number {value!r}")
        return value + 0.0  # folds -0.0 into 0.0
    if isinstance(value, list | tuple):
        return [as_json(v) for v in value]
    if isinstance(value, dict):
        return {_text_key(k): as_json(v) for k, v in value.items()}
    raise TypeError(f"a key cannot hold a {type(value).__name__}: {value!r}")


def _text_key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key cannot hold a mapping with the key {key!r}")
    return key


def canonical(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces, ASCII."""
    return _spelt(as_json(value))


def _spelt(value: Json) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def digest(value: Any) -> str:
    """The digest of a JSON value's canonical spelling."""
    return digest_of_json(as_json(value))


def digest_of_json(value: Json) -> str:
    """The same of what came out of JSON, and so holds nothing else."""
    return hashlib.sha256(_spelt(value).encode()).hexdigest()[:DIGEST_LENGTH]
