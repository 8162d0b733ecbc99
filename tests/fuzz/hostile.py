"""What a hostile, careless or unlucky world writes: names, values, trees, bytes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

NAMES = (
    "", " ", "a", "0", "nan", "null", "~", "../..", "../../etc/passwd", "/", "..", ".", "a/b",
    "a\\b", "a\nb", "a\r\nb", "tab\there", "nul\0byte", "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07", "\u202eright to left", "\u2066x\u2069", "\ufeffbom", "café", "cafe\u0301",
    "猫", "\N{CAT}\u200d\N{BLACK LARGE SQUARE}", "ß" * 90,
    "{}", "{0}", "{name!r}", "%s", "%(x)s", "$HOME", "`id`", "$(id)", "; rm -rf ~", "&& true", "'",
    '"', "it's", "<script>alert(1)</script>", "</script><b>", "<!--", "]]>", "&amp;",
    "javascript:1",
    "\\input{/etc/passwd}", "\\", "$x^2$", "a&b%c#d_e~f", "[red]x[/red]", "[/]", "[link=x]y[/link]",
    "~", "~nosuchuser/x", "-", "--help", "-rf", "=1+1", "@x", "a,b", "a;b", "a:b", "a+b", "a=b",
    "#", "x" * 300,
    "\ud800", "\x7f", "\x85", "\u2028", "CON", "a.", " a ", "True", "1e9", "٣", "Ⅷ", "\u0000",
)  # fmt: skip
"""Names that somebody's class, file, task or title has."""

names = st.one_of(st.sampled_from(NAMES), st.text(max_size=12))
honest_names = names.filter(lambda name: not any("\ud800" <= c <= "\udfff" for c in name))
"""Those that a file of UTF-8 can hold."""

numbers = st.one_of(
    st.sampled_from([0, -1, 1, 2, 3, 10**3, 2**31, 2**32, 2**63, 2**64, -(2**63) - 1, 10**400]),
    st.sampled_from([0.0, -0.0, 0.5, 1e-320, 1e300, float("inf"), float("-inf"), float("nan")]),
)

leaves = st.one_of(
    st.none(), st.booleans(), numbers, names, st.binary(max_size=4), st.dates(), st.datetimes()
)

values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(names, st.integers(), st.none()), inner, max_size=3),
    ),
    max_leaves=6,
)

junk = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"PK\x03\x04", b"PAR1", b"{"]),
    st.integers(1, 3).map(lambda power: b"[" * 10**power),
    st.integers(1, 3).map(lambda power: b"{a: " * 10**power),
    st.integers(1, 3).map(lambda power: b'{"a":' * 10**power),
)  # fmt: skip
"""Bytes that are no file of any kind, or the beginning of one."""


@st.composite
def mutated(draw: st.DrawFn, *trees: Mapping[str, Any]) -> Any:
    """A sound tree with one to three faults: a value of another type, a name too many, one too
    few, a part that stands elsewhere."""
    tree: Any = copy.deepcopy(dict(draw(st.sampled_from(trees))))
    for _ in range(draw(st.integers(1, 3))):
        parent, key = draw(st.sampled_from(_places(tree)))
        match draw(st.sampled_from(["value", "drop", "extra", "rename", "wrap", "copy"])):
            case "value":
                parent[key] = draw(values)
            case "drop" if isinstance(parent, dict) and len(parent) > 1:
                del parent[key]
            case "extra" if isinstance(parent, dict):
                parent[draw(st.one_of(names, st.integers(), st.none()))] = draw(values)
            case "rename" if isinstance(parent, dict):
                parent[draw(st.one_of(names, st.just(f"{key}s")))] = parent.pop(key)
            case "wrap":
                parent[key] = draw(st.sampled_from([[parent[key]], {"kind": parent[key]}]))
            case _:
                other, there = draw(st.sampled_from(_places(tree)))
                parent[key] = copy.deepcopy(other[there])
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every part of a tree, as what holds it and under which name; the largest first."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        part = waiting.pop(0)
        inner = part.items() if isinstance(part, dict) else enumerate(part)
        for key, value in inner:
            found.append((part, key))
            if isinstance(value, dict | list):
                waiting.append(value)
    return found
