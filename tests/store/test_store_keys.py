"""Keys: the same meaning gives the same key, and every name a safe path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.config.spec import canonical
from raycl.errors import ConfigError
from raycl.store import ArtefactSpec, Record, Store, slug

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    plain | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
identities = st.dictionaries(st.text(max_size=6), values, max_size=4)

HOSTILE = [
    "../../etc/passwd", "/", "", ".", "..", "...", "a/b\\c", "con\0trol\n\t", "-rf *", "$(id)",
    "日本語 データ", "Zürich café", "‮gnp.exe", "x" * 5000, "ü" * 300, "<b>&amp;</b>", "a:b|c?",
    "record.json", "name.tmp", "\ud800",
]  # fmt: skip


def key(identity: dict[str, Any], **others: Any) -> str:
    return ArtefactSpec("kind", "name", identity, identity, **others).key


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: shuffled(v) for k, v in reversed(value.items())}
    return [shuffled(v) for v in value] if isinstance(value, list) else value


@settings(max_examples=60, deadline=None)
@given(identities)
def test_the_order_of_fields_and_a_trip_through_json_move_no_key(identity: dict[str, Any]) -> None:
    assert key(shuffled(identity)) == key(identity)
    assert key(json.loads(json.dumps(identity))) == key(identity)


@settings(max_examples=60, deadline=None)
@given(identities, identities)
def test_two_meanings_have_two_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (key(one) == key(other)) == (canonical(one) == canonical(other))


def test_revision_and_parents_move_the_key_and_nothing_else_does() -> None:
    base = key({"a": 1})
    assert len({base, key({"a": 1}, revision=2), key({"a": 1}, parents=("p",))}) == 3
    assert ArtefactSpec("kind", "name", {"a": 1}, {"a": 1, "b": 2}).key == base


def test_a_key_is_the_same_in_another_process() -> None:
    code = (
        "from raycl.store import ArtefactSpec;"
        "print(ArtefactSpec('kind', 'name', {'b': {'x', 'y'} and [1], 'a': 0.1}, {}).key)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == key({"a": 0.1, "b": [1]})


@pytest.mark.parametrize("value", [{1}, float("nan"), object(), b"x", Path("x"), {1: 2}])
def test_what_json_cannot_carry_has_no_key(value: Any) -> None:
    with pytest.raises(TypeError, match="a key cannot hold"):
        key({"a": value})


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_makes_a_safe_path_and_comes_back(local: Store, name: str) -> None:
    wanted = ArtefactSpec("generator", name, {"n": 1}, {})
    local.put(wanted, {"a.json": 1})
    assert local.get(wanted) == {"a.json": 1}
    record = local.record(wanted.key)
    assert record is not None and record.name == name
    root = Path(local.uri)
    below = [p for p in root.parent.rglob("*") if p.is_file()]
    assert len(below) == 2
    assert all(p.parent == root / "artefacts" / wanted.key for p in below)


@given(st.text(max_size=200))
def test_a_slug_is_one_bounded_visible_component(name: str) -> None:
    part = slug(name)
    assert 0 < len(part.encode()) <= 80
    assert "/" not in part and part.isascii() and part.isprintable() and " " not in part
    assert part[0] not in ".-"


def test_names_that_share_a_slug_are_still_two_artefacts(local: Store) -> None:
    for name in ("日本", "中国"):
        local.put(ArtefactSpec("generator", name, {"class": name}, {}), {"a.json": name})
    assert sorted(record.name for record in local.records()) == ["中国", "日本"]


@pytest.mark.parametrize("kind", ["", "Result", "../result", "a b", "x" * 41])
def test_a_kind_is_a_short_word(kind: str) -> None:
    with pytest.raises(ConfigError):
        ArtefactSpec(kind, "name", {}, {})


@settings(max_examples=50, deadline=None)
@given(identities, st.text(max_size=20))
def test_a_record_reads_back_equal(identity: dict[str, Any], name: str) -> None:
    record = Record(
        "k/n/0", "k", name, identity, identity, 1, ("p",), (), {"python": "3"}, "now", 0.5, "host"
    )
    assert Record.from_json(record.to_json()) == record
