"""Documents that nobody should write: plain values, or words."""

from __future__ import annotations

import pytest

from raycl.config.text import DEEPEST, LARGEST, from_json, from_yaml

TWICE = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]"
ENDLESS = "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}' if before else 'x'] * 20)}]"
    for before, name in zip(["", *"abcd"], "abcde", strict=True)
)


def test_aliases_and_merged_keys_are_what_they_stand_for() -> None:
    assert from_yaml("a: &a {b: 1}\nc: {<<: *a, d: 2}")["c"] == {"b": 1, "d": 2}
    assert from_yaml(TWICE)["c"] == [[["x", "x"]] * 2] * 2


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: &a [*a]", "holds itself"),
        ("a: &a {b: *a}", "holds itself"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "deeper"),
        ("{" * 5000, "deeper"),
        (ENDLESS, f"more than {LARGEST:,}"),
        ("1: a", "put it in quotes"),
        ("on: a", "put it in quotes"),
        ("a: 1\na: 2", "twice"),
        ("a: 2024-13-40", "month"),
        ("a: " + "9" * 5000, "digits"),
        ("a: .nan", "no number"),
        ('a: "\\ud800"', "half a character"),
        ("a: !!python/name:os.system", "constructor"),
    ],
)
def test_what_no_config_holds_is_told_in_yaml(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        from_yaml(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"a": 1, "a": 2}', "twice"),
        ("[NaN]", "no number"),
        ('["\\ud800"]', "half a character"),
        ("9" * 5000, "digits"),
        ("[" * 100_000, "deeper"),
    ],
)
def test_what_no_config_holds_is_told_in_json(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        from_json(text)
