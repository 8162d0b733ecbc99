"""How failed work is remembered, carried between processes and raised again.

A `Failure` holds an exception as text and, where possible, as itself; so the type of an
error survives the way from a worker to its caller, and a type that does not travel is
still readable. `Attempts` counts what each item has used and makes the final error.
"""

from __future__ import annotations

import reprlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raycl.errors import (
    ConfigError,
    DataError,
    InterruptedByUser,
    RayclError,
    StoppedError,
    WorkError,
)

AT_ONCE = (StoppedError, InterruptedByUser)
"""Raised to the caller without waiting for other items."""

NEVER_AGAIN = (ConfigError, DataError)
"""What the user wrote or gave does not get better by trying again."""


def short_repr(value: Any) -> str:
    """A repr fit for one line of a message."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 80
    return " ".join(shortener.repr(value).split())


@dataclass(frozen=True)
class Failure:
    """An exception, in a form that always travels."""

    summary: str
    traceback: str
    error: BaseException | None = None
    packed: bytes | None = None

    @classmethod
    def here(cls, error: BaseException) -> Failure:
        """A failure that stays in this process."""
        return cls(_summary(error), _text(error), error=error)

    @classmethod
    def travelling(cls, error: BaseException, dumps: Callable[[Any], bytes]) -> Failure:
        """A failure for another process, packed if it can be."""
        try:
            packed = dumps(error)
        except Exception:
            packed = None
        return cls(_summary(error), _text(error), packed=packed)

    def unpacked(self, loads: Callable[[bytes], Any]) -> Failure:
        """The same after the journey: with the exception, if it can be rebuilt here."""
        error: Any = None
        if self.packed is not None:
            try:
                error = loads(self.packed)
            except Exception:
                error = None
        if not isinstance(error, Exception):
            return Failure(self.summary, self.traceback)
        error.add_note(f"In the worker:\n{self.traceback}")
        return Failure(self.summary, self.traceback, error=error)

    def as_exception(self, what: str) -> BaseException:
        """The original exception, or a `WorkError` that tells all about it."""
        if self.error is not None:
            return self.error
        return WorkError(f"{what}: {self.summary}\n{self.traceback}")


def died(reason: str) -> Failure:
    """The failure of work whose process went away."""
    return Failure(f"its worker died: {reason}", "")


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


class Attempts:
    """What each item has used of its attempts, and which items are beyond hope."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ConfigError("an item needs at least one attempt", got=limit, do="use 1 or more")
        self.limit = limit
        self._used: dict[int, int] = {}
        self._hopeless: list[tuple[int, Any, Failure]] = []

    def used(self, index: int) -> int:
        return self._used.get(index, 0)

    def again(self, index: int, item: Any, failure: Failure) -> bool:
        """Notes a failed attempt; whether the item shall run once more."""
        if isinstance(failure.error, AT_ONCE):
            raise failure.error
        self._used[index] = self.used(index) + 1
        if isinstance(failure.error, NEVER_AGAIN) or self._used[index] >= self.limit:
            self._hopeless.append((index, item, failure))
            return False
        return True

    def forget(self, index: int) -> None:
        """The item succeeded."""
        self._used.pop(index, None)

    def raise_hopeless(self) -> None:
        """Raises the error of the first item that failed for good, if any did."""
        if not self._hopeless:
            return
        index, item, failure = min(self._hopeless, key=lambda lost: lost[0])
        where = f"item {index} ({short_repr(item)})"
        if isinstance(failure.error, RayclError):
            failure.error.add_note(f"This was {where}{self._others()}.")
            raise failure.error
        times = self.used(index)
        raise WorkError(
            f"{where} failed {times} time{'s' if times > 1 else ''}{self._others()}; "
            f"last: {failure.summary}\n{failure.traceback}".rstrip(),
            do="what the other items made is kept; the same command tries the failed ones again",
        ) from failure.error

    def _others(self) -> str:
        others = sorted(index for index, _, _ in self._hopeless)[1:]
        if not others:
            return ""
        return f", and so did {len(others)} other item(s): {short_repr(others)}"
