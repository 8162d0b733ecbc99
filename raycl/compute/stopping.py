"""A polite way to end a run: a flag, and the signals that raise it.

The first SIGINT or SIGTERM sets the flag; work that looks at it saves and ends at its next
step. A later signal ends the process at once, without any cleaning up: what is stored is
whole at every moment, so nothing is lost but time. Later, for one wish comes as several
signals: Slurm sends SIGTERM to a step, and its srun forwards another some 50 ms after it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from raycl.errors import InterruptedByUser, StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_WISH_SECONDS = 2.0
"""Signals that come within this of the first ask for the same thing."""


class StopRequest:
    """Set once, by a signal or by hand; read often and cheaply."""

    def __init__(self) -> None:
        self.requested = False
        self.signal_name: str | None = None

    def request(self, signal_name: str | None = None) -> None:
        """Asks for a stop. The first reason given is the one kept."""
        if not self.requested:
            self.signal_name = signal_name
            self.requested = True


def never() -> bool:
    """The answer of whoever cannot be stopped."""
    return False


@contextmanager
def catching_signals(stop: StopRequest) -> Iterator[None]:
    """SIGINT and SIGTERM request a stop inside; a no-op outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    first: float | None = None

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = now
            stop.request(signal.Signals(number).name)
        elif now - first > SAME_WISH_SECONDS:
            os._exit(exit_code(number))

    before: dict[signal.Signals, Any] = {s: signal.signal(s, on_signal) for s in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: installed by C code; there is no way to put it back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def exit_code(number: int) -> int:
    """What a process that a signal ended exits with: interrupted, or resumable."""
    interrupted = number == signal.SIGINT
    return InterruptedByUser.exit_code if interrupted else StoppedError.exit_code
