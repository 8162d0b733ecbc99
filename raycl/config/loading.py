"""From what a user writes (files, `--set a.b=v`, flags) to a checked config.

One override mechanism: mappings merged from left to right, later ones win. What cannot
be meant is a `ConfigError` that names the path, shows the value and suggests the nearest
name that exists.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.config.generators import GENERATORS, parse_generator
from raycl.config.methods import BUILT_IN, PROMPTS, kind_of, parse_method
from raycl.config.sources.catalogue import known_names
from raycl.config.spec import Spec
from raycl.config.streams import STREAMS, parse_probe, parse_stream
from raycl.config.text import from_json, from_yaml
from raycl.errors import ConfigError

M = TypeVar("M", bound=BaseModel)
Tree = dict[str, Any]


class Config(Spec):
    """What a config file may hold: the experiment's fields and an `execution` block."""

    experiment: Experiment
    execution: Execution = Execution()


def read_file(path: Path) -> Tree:
    """A YAML or JSON file as a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = from_json(text) if path.suffix == ".json" else from_yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the config file cannot be read", got=str(path), do=str(error)) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid YAML or JSON", do=str(error)) from error
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} must hold a mapping at its top",
            got=type(tree).__name__,
            do="write fields such as `method: {kind: slda}`",
        )
    return tree


def parse_setting(text: str) -> Tree:
    """`a.b=v` as a nested mapping; the value is read as YAML."""
    path, equals, value = text.partition("=")
    names = path.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(
            "a setting must look like path.to.option=value", got=text, do="e.g. stream.tasks=10"
        )
    try:
        parsed = _value(value.strip())
    except ValueError as error:
        raise ConfigError(
            f"the value of --set {path} is not valid YAML: {error}",
            got=value,
            do=f"if it is text, quote it for YAML too: --set '{path}=\"…\"'",
        ) from error
    tree: Tree = {names[-1]: parsed}
    for name in reversed(names[:-1]):
        tree = {name: tree}
    return tree


def _value(text: str) -> Any:
    """A number as Python writes it, else YAML: there 1e-3 would be text and 010 be eight."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    value = from_yaml(text)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return text if is_number else value


def merge(trees: Iterable[Mapping[str, Any]]) -> Tree:
    """Nested mappings folded from left to right. A changed `kind` keeps the options that the
    new kind has too, and drops the others."""
    out: Tree = {}
    for tree in trees:
        out = _merged(out, tree)
    return out


def _merged(left: Mapping[str, Any], right: Mapping[str, Any]) -> Tree:
    out = dict(left)
    if "kind" in left and "kind" in right and left["kind"] != right["kind"]:
        out = {name: out[name] for name in _options_of(right["kind"]) if name in out}
    for name, value in right.items():
        old = out.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        out[name] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return out


def _options_of(kind: object) -> list[str]:
    specs = (*BUILT_IN, *STREAMS, *PROMPTS, *GENERATORS)
    return [name for spec in specs if kind_of(spec) == kind for name in spec.model_fields]


def load(trees: Sequence[Mapping[str, Any]]) -> Config:
    """The checked config of several mappings, or a ConfigError that helps."""
    tree = merge(_spelt_out(tree) for tree in trees)
    for needed in ("method", "stream"):
        if needed not in tree:
            raise ConfigError(f"no {needed} is named", do=f"name one: {_kinds(needed)}")
    execution = tree.pop("execution", {})
    return check(Config, {"experiment": tree, "execution": execution}, strip=("experiment",))


def _spelt_out(tree: Mapping[str, Any]) -> Tree:
    """`method: slda` means what it means on the command line."""
    out = dict(tree)
    for name, parse in (
        ("method", parse_method),
        ("stream", parse_stream),
        ("probe", parse_probe),
    ):
        given = out.get(name)
        if isinstance(given, str):
            out[name] = parse(given)
        elif name != "method" and isinstance(given, Mapping) and isinstance(given.get("kind"), str):
            # `{kind: cifar100, tasks: 20}` is the named stream with that option.
            out[name] = {**given, **(parse(given["kind"]) if ":" not in given["kind"] else {})}
    method = out.get("method")
    if isinstance(method, Mapping):
        out["method"] = {**method, **_spelt_out_parts(method)}
    return out


def _spelt_out_parts(method: Mapping[str, Any]) -> Tree:
    """`generator: gaussian:full` and `prompt: tokens` as their specs."""
    generator, prompt = method.get("generator"), method.get("prompt")
    return {
        **({"generator": parse_generator(generator)} if isinstance(generator, str) else {}),
        **({"prompt": {"kind": prompt}} if isinstance(prompt, str) else {}),
    }


def check(model: type[M], tree: Any, *, strip: Sequence[str] = ()) -> M:
    """The tree as a model; pydantic's complaints in raycl's words."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _explain(model, error, strip) from None


def _explain(model: type[BaseModel], error: ValidationError, strip: Sequence[str]) -> ConfigError:
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    shown = ".".join(_without_tags(model, location, strip))
    match first["type"]:
        case "extra_forbidden":
            known = _fields_at(model, location[:-1])
            if location[:-1] == list(strip):
                known.append("execution")
            return ConfigError(f"no option is named {shown!r}", do=suggest(location[-1], known))
        case "union_tag_invalid":
            tag = str(first["ctx"]["tag"])
            known = _kinds_list(location[-1]) or _tags(str(first["ctx"]["expected_tags"]))
            return ConfigError(f"unknown {shown} {tag!r}", do=suggest(tag, known))
        case "union_tag_not_found":
            return ConfigError(f"{shown} needs a kind", do=f"set {shown}.kind: {_kinds(shown)}")
        case "string_type":
            return ConfigError(
                f"{shown} must be text",
                got=repr(first["input"]),
                do=f"quote it for YAML too: --set '{shown}=\"…\"'",
            )
        case "missing":
            return ConfigError(f"{shown} is missing", do=f"set it, e.g. --set {shown}=…")
        case _:
            return ConfigError(
                f"{shown} cannot be used: {first['msg'].lower()}",
                got=repr(first["input"]),
                do=f"correct {shown}",
            )


def _tags(listed: str) -> list[str]:
    """The kinds in pydantic's own list of them: `'residual', 'tokens'`."""
    return [tag.strip(" '") for tag in listed.split(",")]


def suggest(name: str, known: Sequence[str]) -> str:
    """What to do about a name that is not known."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    options = ", ".join(known) or "none"
    return f"did you mean {close[0]!r}? (known: {options})" if close else f"known: {options}"


def _kinds_list(field: str) -> list[str]:
    specs: tuple[type[Spec], ...] = {
        "method": BUILT_IN,
        "stream": STREAMS,
        "probe": STREAMS,
        "generator": GENERATORS,
    }.get(field, ())
    kinds = [kind_of(spec) for spec in specs]
    return [*(k for k in kinds if k != "named"), *known_names()] if specs == STREAMS else kinds


def _kinds(field: str) -> str:
    return ", ".join(_kinds_list(field))


def _without_tags(
    model: type[BaseModel], location: Sequence[str], strip: Sequence[str]
) -> list[str]:
    """The path as a user writes it: without union tags and the wrapper's own names."""
    shown: list[str] = []
    at: Any = model
    for part in location:
        at, is_field = _descend(at, part)
        if is_field and not (not shown and part in strip):
            shown.append(part)
    return shown


def _fields_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    at: Any = model
    for part in location:
        at, _ = _descend(at, part)
    return list(at.model_fields) if _is_model(at) else []


def _descend(at: Any, part: str) -> tuple[Any, bool]:
    """One step of a pydantic error path: into a field, or into a member of a union."""
    if _is_model(at):
        field = at.model_fields.get(part)
        return (field.annotation if field else None), True
    for member in _members(at):
        if _is_model(member) and "kind" in member.model_fields and kind_of(member) == part:
            return member, False
    return None, True


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(m for part in typing.get_args(annotation) for m in _members(part) or (part,))
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    return ()


def _is_model(at: Any) -> bool:
    return isinstance(at, type) and issubclass(at, BaseModel)
