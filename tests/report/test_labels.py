"""Short names: what tells settings apart, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.report.labels import options_of, shortened


@pytest.mark.parametrize(
    ("labels", "short"),
    [
        (["cgil(align.epochs=10, per_class=64)", "ncm"], ["cgil", "ncm"]),
        (["rail(form=dual)", "rail"], ["rail(form=dual)", "rail"]),
        (["x(a=1, b=2)", "x(a=1, b=3)", "x(a=1)"], ["x(b=2)", "x(b=3)", "x"]),
        (["x(a=[1, 2], b=2)", "x(a=[1, 3], b=2)"], ["x(a=[1, 2])", "x(a=[1, 3])"]),
        (["x(a=1) #12ab", "x(a=1) #34cd"], ["x #12ab", "x #34cd"]),
        (["Dual (theirs)", "LADA(16 shots)"], ["Dual (theirs)", "LADA(16 shots)"]),
        (["x(", "", "x()", "x(a=1"], ["x(", "", "x()", "x(a=1"]),
        ([], []),
    ],
)
def test_what_all_of_a_method_say_is_left_out(labels: list[str], short: list[str]) -> None:
    assert shortened(labels) == short


@settings(deadline=None)
@given(st.lists(st.text("ab(),=[] #(),=", max_size=14), max_size=5, unique=True))
def test_different_labels_stay_different(labels: list[str]) -> None:
    assert len(set(shortened(labels))) == len(labels)


def test_the_options_are_what_was_left_out() -> None:
    assert options_of("cgil(align.epochs=10, per_class=64)") == "align.epochs=10, per_class=64"
    assert options_of("ncm") == ""
