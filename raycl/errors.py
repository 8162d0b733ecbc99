"""Every error that raycl raises on purpose, as one tree.

    RayclError
    ├── ConfigError        (ValueError)       2   what a user wrote: option, config, flag
    ├── DataError          (ValueError)       2   a data set that cannot be used as it is
    ├── StoreError         (OSError)          2   the store cannot be reached, read or written
    │   ├── DiskFullError                     1   no space left; what was finished is kept
    │   ├── CorruptArtefactError              1   bytes differ from their checksum
    │   └── StaleArtefactError                1   a hit whose recorded meaning differs
    ├── ClusterError       (ConnectionError)  2   no Ray there, or it refused us
    ├── WorkError          (RuntimeError)     1   a work item or its worker failed for good
    ├── MethodError        (RuntimeError)     1   a method broke its contract, or diverged
    ├── StoppedError       (RuntimeError)    75   stopped on request; the same command continues
    └── InterruptedByUser  (RuntimeError)   130   the same, by Ctrl-C

Each is also a standard type, survives pickling between processes, carries the
exit code of the command it ends, and says what is wrong, what was got and what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class RayclError(Exception):
    """What went wrong, the value that was got, and what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, got: Any = None, do: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        # A repr, because the value itself may not survive pickling.
        self.got = None if got is None else got if isinstance(got, str) else repr(got)
        self.do = do

    def __str__(self) -> str:
        text = _shortened(self.what)
        if self.got is not None:
            text += f" (got {_shortened(self.got)})"
        if self.do:
            text += f"\n  → {self.do}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.__dict__)


LONGEST = 500
"""Characters of a line before its middle is left out: a value may be a million letters."""


def _shortened(text: str) -> str:
    half = LONGEST // 2
    return "\n".join(
        line if len(line) <= LONGEST else f"{line[:half]} … {line[-half:]}"
        for line in text.split("\n")
    )


def _rebuild(cls: type[RayclError], what: str, state: dict[str, Any]) -> RayclError:
    error = cls(what)
    error.__dict__.update(state)
    return error


class ConfigError(RayclError, ValueError):
    """An option, a config file or a flag that cannot be what the user meant."""

    exit_code = 2


class DataError(RayclError, ValueError):
    """A data set that cannot be used as it is."""

    exit_code = 2


class StoreError(RayclError, OSError):
    """The store cannot be reached, read or written."""

    exit_code = 2


class DiskFullError(StoreError):
    """No space is left where the store lives."""

    exit_code = 1


class CorruptArtefactError(StoreError):
    """The bytes of an artefact differ from their recorded checksum."""

    exit_code = 1


class StaleArtefactError(StoreError):
    """A stored artefact has the key that was asked for and another meaning."""

    exit_code = 1


class ClusterError(RayclError, ConnectionError):
    """No Ray cluster answers at the address, or it refused the connection."""

    exit_code = 2


class WorkError(RayclError, RuntimeError):
    """A work item failed at every attempt, or its workers kept dying."""


class MethodError(RayclError, RuntimeError):
    """A method broke its contract or its training diverged."""


class StoppedError(RayclError, RuntimeError):
    """The run was asked to stop; what it finished is stored."""

    exit_code = 75


class InterruptedByUser(RayclError, RuntimeError):  # noqa: N818 - it is not a fault
    """The run was interrupted from the keyboard; what it finished is stored."""

    exit_code = 130
