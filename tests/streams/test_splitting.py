"""Order, cut, shots and validation: as published, and blind to each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.errors import ConfigError
from raycl.streams.splitting import class_order, cut, draw_shots, hold_out, task_classes


@pytest.mark.parametrize(
    ("seed", "new_label"),
    [
        (1992, [4, 6, 0, 2, 9, 5, 3, 1, 8, 7]),
        (1996, [0, 7, 8, 4, 6, 9, 3, 5, 2, 1]),
        (1997, [5, 4, 3, 7, 1, 2, 6, 8, 0, 9]),
    ],
)
def test_class_order_is_the_published_one(seed: int, new_label: list[int]) -> None:
    order = class_order(10, seed)
    assert [order.index(c) for c in range(10)] == new_label


@pytest.mark.parametrize(
    ("classes", "tasks", "sizes"),
    [
        (196, 10, [20] * 9 + [16]),
        (100, 10, [10] * 10),
        (10, 3, [4, 4, 2]),
        (11, 10, [2] + [1] * 9),
        (5, 5, [1] * 5),
        (1, 1, [1]),
    ],
)
def test_task_sizes(classes: int, tasks: int, sizes: list[int]) -> None:
    assert [len(part) for part in cut(list(range(classes)), tasks)] == sizes


@given(st.integers(1, 60), st.integers(1, 60))
def test_every_class_is_in_one_task_and_none_is_empty(classes: int, tasks: int) -> None:
    if tasks > classes:
        with pytest.raises(ConfigError, match="more tasks than classes"):
            task_classes(np.zeros(classes, np.int64), 1, tasks, 0)
        return
    parts = task_classes(np.zeros(classes, np.int64), 1, tasks, 0)
    assert len(parts) == tasks and all(parts)
    assert sorted(c for part in parts for c in part) == list(range(classes))


def test_domains_are_tasks_unless_a_number_is_given() -> None:
    domain = np.array([0, 0, 1, 1, 1, 2])
    assert task_classes(domain, 3, None, 5) == [[0, 1], [2, 3, 4], [5]]
    assert len(task_classes(domain, 3, 2, 5)) == 2


def test_shots_do_not_depend_on_other_classes_and_nest_nowhere_they_should_not() -> None:
    rows = np.arange(100, 120)
    drawn = draw_shots(rows, 3, 4, 0)
    assert len(drawn) == 4 and set(drawn) <= set(rows)
    assert np.array_equal(drawn, draw_shots(rows, 3, 4, 0))
    assert not np.array_equal(drawn, draw_shots(rows, 4, 4, 0))
    assert not np.array_equal(drawn, draw_shots(rows, 3, 4, 1))
    assert np.array_equal(draw_shots(rows, 3, None, 0), rows)
    assert np.array_equal(draw_shots(rows, 3, 99, 0), rows)


@given(st.integers(0, 40), st.floats(0.01, 0.99))
def test_held_out_and_fit_share_nothing(n: int, fraction: float) -> None:
    rows = np.arange(n) * 3
    fit, held = hold_out(rows, 1, fraction, 0)
    assert sorted([*fit, *held]) == list(rows)
    if n >= 2:
        assert len(held) >= 1 and len(fit) >= 1
    else:
        assert len(held) == 0
