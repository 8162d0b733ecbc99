"""From the text of a YAML or JSON file to plain values, whoever wrote it.

Guarantees: no code runs; every key is text and is given once; numbers are finite, text is whole
Unicode; nothing is deeper or larger, its aliases written out, than a config has reason to be.
Whatever else it is, is a `ValueError` in words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import yaml

DEEPEST = 64
"""Levels of a config."""
LARGEST = 100_000
"""Values of a config, each alias counted as what it stands for."""


def from_yaml(text: str) -> Any:
    """The value of a YAML document."""
    return _sound(_load_yaml, text)


def from_json(text: str) -> Any:
    """The value of a JSON document."""
    return _sound(_load_json, text)


def _sound(load: Callable[[str], Any], text: str) -> Any:
    try:
        value = load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _size(value, DEEPEST, {}) > LARGEST:
        raise ValueError(f"it holds more than {LARGEST:,} values, with its aliases written out")
    return value


_TOO_DEEP = f"it is nested deeper than {DEEPEST} levels, or holds itself"


def _load_yaml(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _load_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once_each)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!r} is given twice")
        found[name] = value
    return found


class _Loader(yaml.SafeLoader):
    """YAML without code, without a key given twice and without one that is no text."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        super().fetch_flow_collection_start(TokenClass)
        self._refuse_depth(self.flow_level)

    def add_indent(self, column: int) -> bool:
        self._refuse_depth(len(self.indents))
        return bool(super().add_indent(column))

    def _refuse_depth(self, levels: int) -> None:
        # While it is read: reading alone takes minutes where there are a hundred thousand.
        if levels > DEEPEST:
            raise yaml.YAMLError(_TOO_DEEP)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key for key, _ in node.value if key.tag != _MERGE]
        seen: set[str] = set()
        for key in written:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                raise _fault(f"a key is text, and {name!r} is not: put it in quotes", key)
            if name in seen:
                raise _fault(f"the key {name!r} is given twice", key)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            # Such as a date with a thirteenth month.
            raise _fault(str(error), node) from error


_MERGE = "tag:yaml.org,2002:merge"


def _fault(what: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, what, node.start_mark)


def _size(value: Any, levels: int, known: dict[int, int]) -> int:
    """How many values it is, written out; what a config cannot hold is refused."""
    if not isinstance(value, dict | list):
        _check_leaf(value)
        return 1
    if id(value) in known:
        return known[id(value)]
    if not levels:
        raise ValueError(_TOO_DEEP)
    inner = value
    if isinstance(value, dict):
        for name in value:
            _check_leaf(name)
        inner = list(value.values())
    known[id(value)] = 1 + sum(_size(one, levels - 1, known) for one in inner)
    return known[id(value)]


def _check_leaf(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number that an option can have")
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{value[:40]!r} holds half a character")
