"""Order, cut, shots and validation: as published, and blind to each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.config.streams import DigitsStream
from raycl.errors import ConfigError
from raycl.streams.splitting import (
    class_order,
    cut,
    cut_by_size,
    draw_shots,
    hold_out,
    is_by_domain,
    task_classes,
)


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
    domain, spec = np.zeros(classes, np.int64), DigitsStream(tasks=tasks)
    if tasks > classes:
        with pytest.raises(ConfigError, match="more tasks than classes"):
            task_classes(domain, 1, spec, 0)
        return
    parts = task_classes(domain, 1, spec, 0)
    assert len(parts) == tasks and all(parts)
    assert sorted(c for part in parts for c in part) == list(range(classes))


def test_domains_are_tasks_unless_a_number_is_given() -> None:
    domain = np.array([0, 0, 1, 1, 1, 2])
    assert task_classes(domain, 3, DigitsStream(), 5) == [[0, 1], [2, 3, 4], [5]]
    assert len(task_classes(domain, 3, DigitsStream(tasks=2), 5)) == 2
    assert len(task_classes(domain, 3, DigitsStream(increments=(4, 2)), 5)) == 2


def test_each_domain_may_be_cut_in_its_place() -> None:
    domain = np.array([0] * 6 + [1] * 4)
    parts = task_classes(domain, 2, DigitsStream(per_domain=2), 5)
    assert [len(part) for part in parts] == [3, 3, 2, 2]
    assert sorted(parts[0] + parts[1]) == list(range(6))
    assert sorted(parts[2] + parts[3]) == list(range(6, 10))
    assert not is_by_domain(DigitsStream(per_domain=2), 2) and is_by_domain(DigitsStream(), 2)
    with pytest.raises(ConfigError, match="4 or fewer"):
        task_classes(domain, 2, DigitsStream(per_domain=5), 5)


def test_pycils_order_begins_as_everybody_knows_it() -> None:
    """CIFAR-100 with seed 1993, as iCaRL's authors and all after them list it."""
    order = class_order(100, 1993, "pycil")
    assert order[:10] == [68, 56, 78, 8, 23, 84, 90, 65, 74, 76]
    assert class_order(5, 3, "source") == [0, 1, 2, 3, 4]
    assert sorted(order) == list(range(100)) and order != class_order(100, 1993)


@pytest.mark.parametrize(
    ("classes", "increments", "sizes"),
    [
        (100, (50, 10), [50] + [10] * 5),
        (196, (20,), [20] * 9 + [16]),
        (10, (1, 2, 3, 4), [1, 2, 3, 4]),
        (10, (10,), [10]),
        (10, (99,), [10]),
    ],
)
def test_increments_go_on_with_the_last(
    classes: int, increments: tuple[int, ...], sizes: list[int]
) -> None:
    parts = cut_by_size(list(range(classes)), increments)
    assert [len(part) for part in parts] == sizes
    assert [c for part in parts for c in part] == list(range(classes))


def test_increments_that_nothing_is_left_for_are_refused() -> None:
    with pytest.raises(ConfigError, match="more increments than there are classes"):
        cut_by_size(list(range(10)), (5, 5, 5))
    with pytest.raises(ValueError, match="give one"):
        DigitsStream(tasks=2, increments=(5,))


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
