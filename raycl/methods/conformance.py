"""What every method must hold, checked on a small synthetic stream in a second or two.

Built-in methods and a user's own go through the same checks: `raycl methods --check FILE`.
The stream has text for every class, a class with one sample and two with none, one of them
alone in the first task. It tests the contract, not whether the method learns anything.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raycl.compute.local_pool import LocalPool
from raycl.config.seeds import rng
from raycl.config.streams import Validation
from raycl.errors import RayclError, StoppedError
from raycl.methods.context import Context
from raycl.methods.method import Method, Setting, State
from raycl.methods.parts.keys import unit
from raycl.observe.events import nobody
from raycl.streams.stream import Samples, Task

Builder = Callable[[Setting], Method[Any]]

TASKS = ((6,), (4, 1), (0, 5), (3, 2))
"""Class ids out of order, so that a method that mixes ids and positions is found."""
COUNTS = {6: 0, 4: 8, 1: 12, 0: 1, 5: 9, 3: 0, 2: 10}
WIDTH = 12
CLOSE = 1e-4


@dataclass(frozen=True)
class Finding:
    """One check and what came of it."""

    what: str
    fault: str | None = None

    @property
    def ok(self) -> bool:
        return self.fault is None


def check_method(build: Builder, bench_type: type[Bench] | None = None) -> list[Finding]:
    """Every check's finding; an exception of the method is a fault of that check."""
    bench = (bench_type or Bench)(build)
    checks = {
        "scores have one finite column per class": bench.scores_fit,
        "scores of a sample do not depend on the others": bench.scores_by_row,
        "state is a mapping of names to tensors": bench.state_is_tensors,
        "restore(state()) scores the same": bench.restores_scores,
        "learning goes on the same after restore": bench.restores_learning,
        "learning twice from one state gives one state": bench.repeats,
        "learning leaves the task's tensors alone": bench.keeps_data,
        "a stop in the middle continues to the same state": bench.survives_stop,
        "a state fits a setting with more classes": bench.fits_more_classes,
    }
    return [Finding(what, _fault_of(check)) for what, check in checks.items()]


def _fault_of(check: Callable[[], None]) -> str | None:
    try:
        check()
    except AssertionError as error:
        return str(error)
    except RayclError as error:
        return str(error)
    except Exception:
        return traceback.format_exc(limit=-3)
    return None


class Bench:
    """A method builder on the synthetic stream."""

    def __init__(self, build: Builder) -> None:
        self.build = build
        self.setting = synthetic_setting()
        self.tasks = list(synthetic_tasks(self.setting))
        self.x = torch.cat([task.test.x for task in self.tasks])

    def learnt(self, tasks: int, start: State | None = None, at: int = 0) -> Method[Any]:
        """A fresh method, restored after task `at` if a state is given, after `tasks` tasks."""
        method = self.build(self.setting)
        if start is not None:
            method.seen = self._seen(at)
            method.restore({name: tensor.clone() for name, tensor in start.items()})
        for task in self.tasks[at:tasks]:
            self.learn(method, task)
        return method

    def learn(self, method: Method[Any], task: Task, **lent: Any) -> None:
        method.seen = self._seen(task.index + 1)
        method.learn(task.without_test(), Context(task.index, LocalPool(), nobody, **lent))

    def _seen(self, tasks: int) -> tuple[int, ...]:
        return tuple(c for task in self.tasks[:tasks] for c in task.classes)

    def scores_fit(self) -> None:
        for tasks in range(1, len(self.tasks) + 1):
            method = self.learnt(tasks)
            seen = method.seen_scores(self.x)
            _expect_shape("seen_scores", seen, (len(self.x), len(method.seen)))
            union = method.union_scores(self.x)
            if method.scores_unseen:
                assert union is not None, "scores_unseen is true, union_scores gave None"
                _expect_shape("union_scores", union, (len(self.x), self.setting.classes))

    def scores_by_row(self) -> None:
        method = self.learnt(len(self.tasks))
        together = method.seen_scores(self.x)
        alone = torch.cat([method.seen_scores(row) for row in torch.split(self.x, 1)])
        _expect_close("a row's scores alone and in a batch", together, alone)

    def state_is_tensors(self) -> None:
        state = self.learnt(1).state()
        assert isinstance(state, dict), f"state() gave a {type(state).__name__}"
        for name, value in state.items():
            assert isinstance(name, str) and isinstance(value, Tensor), f"state[{name!r}]: {value}"

    def restores_scores(self) -> None:
        old = self.learnt(3)
        new = self.learnt(3, old.state(), at=3)
        _expect_equal("seen scores", old.seen_scores(self.x), new.seen_scores(self.x))

    def restores_learning(self) -> None:
        through = self.learnt(4)
        resumed = self.learnt(4, self.learnt(3).state(), at=3)
        _expect_same_state(through.state(), resumed.state())

    def repeats(self) -> None:
        start = self.learnt(2).state()
        _expect_same_state(self.learnt(3, start, at=2).state(), self.learnt(3, start, at=2).state())

    def keeps_data(self) -> None:
        before = [task.train.x.clone() for task in self.tasks]
        self.learnt(len(self.tasks))
        for task, x in zip(self.tasks, before, strict=True):
            _expect_equal(f"training vectors of task {task.index}", x, task.train.x)

    def survives_stop(self) -> None:
        saved: dict[str, Mapping[str, Tensor]] = {}
        method = self.learnt(2)
        lent: dict[str, Any] = {"save_partial": saved.__setitem__, "load_partial": saved.get}
        try:
            self.learn(method, self.tasks[2], stopping=lambda: True, **lent)
        except StoppedError:
            method = self.learnt(2)
            self.learn(method, self.tasks[2], **lent)
        _expect_same_state(self.learnt(3).state(), method.state())

    def fits_more_classes(self) -> None:
        """As a probe asks: classes that the stream does not have, scored by the rule."""
        old = self.learnt(3)
        if not old.scores_unseen:
            return
        new = self.build(with_more_classes(self.setting))
        new.seen = old.seen
        new.restore({name: tensor.clone() for name, tensor in old.state().items()})
        # Close, because a product with more columns may round otherwise.
        _expect_close("seen scores", old.seen_scores(self.x), new.seen_scores(self.x))
        union = new.union_scores(self.x)
        assert union is not None, "with more classes, union_scores gave None"
        _expect_shape("union_scores", union, (len(self.x), new.setting.classes))


def with_more_classes(setting: Setting, more: int = 3) -> Setting:
    """The setting with classes behind the others that no task brings."""
    noise = rng(0, "conformance more").normal(size=(more, setting.width)).astype(np.float32)
    return replace(
        setting,
        class_names=setting.class_names + tuple(f"more {c}" for c in range(more)),
        text=torch.cat([setting.text, unit(torch.from_numpy(noise))]),
        has_text=torch.cat([setting.has_text, torch.ones(more, dtype=torch.bool)]),
    )


def synthetic_setting() -> Setting:
    """Seven classes with unit text vectors."""
    text = rng(0, "conformance text").normal(size=(len(COUNTS), WIDTH)).astype(np.float32)
    return Setting(
        class_names=tuple(f"class {c}" for c in range(len(COUNTS))),
        text=unit(torch.from_numpy(text)),
        has_text=torch.ones(len(COUNTS), dtype=torch.bool),
        logit_scale=100.0,
        init_seed=0,
        validation=Validation(seed=0),
        device=torch.device("cpu"),
    )


def synthetic_tasks(setting: Setting) -> Iterator[Task]:
    """Tasks of noisy copies of the text vectors."""
    for index, classes in enumerate(TASKS):
        train = _samples(setting, classes, "train", COUNTS)
        test = _samples(setting, classes, "test", dict.fromkeys(classes, 5))
        yield Task(index, classes, train=train, fit=train, held_out=test, test=test)


def _samples(
    setting: Setting, classes: tuple[int, ...], split: str, counts: Mapping[int, int]
) -> Samples:
    y = np.repeat(classes, [counts[c] for c in classes])
    noise = rng(0, "conformance", split, *classes).normal(size=(len(y), WIDTH))
    x = setting.text[torch.from_numpy(y)] + 0.2 * torch.from_numpy(noise).float()
    return Samples(x, torch.from_numpy(y), np.arange(len(y)))


def _expect_shape(name: str, scores: Tensor, shape: tuple[int, int]) -> None:
    assert isinstance(scores, Tensor), f"{name} gave a {type(scores).__name__}"
    assert tuple(scores.shape) == shape, f"{name} gave {tuple(scores.shape)}, expected {shape}"
    assert not scores.isnan().any(), f"{name} holds NaN"
    assert not torch.isposinf(scores).any(), f"{name} holds infinity"


def _expect_close(what: str, a: Tensor, b: Tensor) -> None:
    assert torch.allclose(a, b, rtol=CLOSE, atol=CLOSE), f"{what} differ by {_gap(a, b)}"


def _expect_equal(what: str, a: Tensor, b: Tensor) -> None:
    assert torch.equal(a, b), f"{what} differ by {_gap(a, b)}"


def _gap(a: Tensor, b: Tensor) -> str:
    return f"{(a - b).abs().max().item():g}" if a.shape == b.shape else f"{a.shape}, {b.shape}"


def _expect_same_state(a: State, b: State) -> None:
    assert a.keys() == b.keys(), f"states hold {sorted(a)} and {sorted(b)}"
    for name in a:
        _expect_equal(f"state[{name!r}]", a[name], b[name])
