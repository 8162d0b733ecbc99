"""What the code of a learner sees of whoever hosts it.

A target is a plain function `target(context, payload) -> value`. It may be started again
after a death, so it continues from what it stored; it looks at `context.stopping()` at
its step boundaries and ends with a `StoppedError` once it has saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from raycl.observe.events import Event


class LearnerContext(Protocol):
    """The host's side of a running learner."""

    def emit(self, event: Event) -> None:
        """Tells the driver's observer, in order."""

    def stopping(self) -> bool:
        """Whether a stop was asked for. As cheap as reading a flag."""


class Stoppable(Protocol):
    """Anything with a flag that says stop, such as a `StopRequest`."""

    @property
    def requested(self) -> bool: ...


Target = Callable[[LearnerContext, Any], Any]
