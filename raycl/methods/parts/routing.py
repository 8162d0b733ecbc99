"""How routed predictions come about, and what is known of them when the truth is.

    hard     argmax of head k̂'s classes, k̂ = argmax p(k | x)
    soft     argmax over all classes of p(k | x) · p(y | x, k)
    oracle   argmax of the classes of the true task's head: what routing could gain

    accuracy = Σ_t P(task t) · P(routed right | t) · P(head right | routed right, t)

The last line is an identity under hard routing, since a head knows the classes of its task
alone; the terms are measured one by one, and never a product of marginals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.methods.parts.keys import FLOOR

BELOW = 1e4
"""How far below the chosen head's classes all others are ranked."""


def routed_scores(log_shares: Tensor, log_heads: Tensor, task_of: Tensor, *, hard: bool) -> Tensor:
    """(n, classes) scores of classes whose task is given; `log_heads` is log p(y | x, task of y).

    With hard routing the others follow behind the chosen head's, in the order of their product.
    """
    scores = log_shares[:, task_of] + log_heads
    if not hard:
        return scores
    chosen = log_shares.argmax(dim=1, keepdim=True) == task_of
    return scores - BELOW * (~chosen).to(scores)


def head_shares(logits: Tensor, task_of: Tensor) -> Tensor:
    """(n, classes) log p(y | x, task of y): a softmax within each task."""
    out = torch.full_like(logits, FLOOR)
    for task in sorted(set(task_of.tolist())):
        own = torch.nonzero(task_of == task).flatten()
        known = own[logits[:, own].isfinite().all(dim=0)] if len(logits) else own
        if len(known):
            out[:, known] = logits[:, known].log_softmax(dim=1)
    return out


@dataclass(frozen=True)
class Routed:
    """What the tests of the classes seen say about routing."""

    tasks: int
    confusion: Tensor
    """(tasks, tasks) counts: of each task's tests, how many were sent where."""
    head_right: Tensor
    """Of each task's tests that were routed right, those whose head was right too."""
    oracle_right: Tensor
    """Of each task's tests, those that their own head gets right."""
    soft_right: int
    """Of all tests."""

    @classmethod
    def of(cls, log_shares: Tensor, log_heads: Tensor, task_of: Tensor, label: Tensor) -> Routed:
        """`label` is each test's column among the classes."""
        tasks = log_shares.shape[1]
        truth, sent = task_of[label], log_shares.argmax(dim=1)
        oracle = log_heads.masked_fill(task_of != truth[:, None], FLOOR).argmax(dim=1)
        right = oracle == label
        soft = routed_scores(log_shares, log_heads, task_of, hard=False).argmax(dim=1)
        confusion = torch.bincount(truth * tasks + sent, minlength=tasks * tasks)
        return cls(
            tasks,
            confusion.reshape(tasks, tasks),
            torch.bincount(truth[(sent == truth) & right], minlength=tasks),
            torch.bincount(truth[right], minlength=tasks),
            int((soft == label).sum()),
        )

    def figures(self) -> dict[str, float | str | None]:
        """Shares in percent, by name; None where there is nothing to divide by."""
        tests, newest = self.confusion.sum(dim=1), self.tasks - 1
        routed = self.confusion.diagonal()
        total, old = int(tests.sum()), int(tests[:newest].sum())
        wrong = old - int(routed[:newest].sum())
        out: dict[str, float | str | None] = {
            "accuracy_hard": percent(int(self.head_right.sum()), total),
            "accuracy_soft": percent(self.soft_right, total),
            "accuracy_oracle": percent(int(self.oracle_right.sum()), total),
            "router_accuracy": percent(int(routed.sum()), total),
            "old_to_newest": percent(int(self.confusion[:newest, newest].sum()), old),
            # As if what goes wrong were sent to every other task alike.
            "fair_to_newest": percent(wrong, old * newest) if newest else None,
        }
        for t in range(self.tasks):
            out |= {
                f"task_{t + 1}.share": percent(int(tests[t]), total),
                f"task_{t + 1}.routed": percent(int(routed[t]), int(tests[t])),
                f"task_{t + 1}.head_if_routed": percent(int(self.head_right[t]), int(routed[t])),
                f"task_{t + 1}.oracle": percent(int(self.oracle_right[t]), int(tests[t])),
            }
        return out


def percent(part: int, whole: int) -> float | None:
    """None of nothing."""
    return 100 * part / whole if whole else None
