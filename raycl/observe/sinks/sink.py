"""`Sink`: one run in a tool that draws curves; and the `Subject` that it is about.

Guarantees of a sink: the same subject again continues the same run there. What it raises is
caught by who tells it (`raycl.observe.sinks.telling`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

How = Literal["finished", "stopped", "failed"]
Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Subject:
    """A run, as a sink gets to know it."""

    id: str
    """Letters, digits and dashes; the same whenever the run continues."""
    name: str
    group: str
    """What it is shown with: all plain runs, or the trials of one sweep."""
    config: Mapping[str, Any]
    root: Path
    """The folder of all that sinks write as files."""

    @property
    def folder(self) -> Path:
        """This run's own."""
        return self.root / self.id

    def settings(self) -> dict[str, Any]:
        """The config as one level of dotted names."""
        return dict(_leaves(self.config))


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield above + name, value


class Sink(Protocol):
    """An open run."""

    def tell(self, done: int, values: Numbers) -> None:
        """What it is worth after so many tasks."""

    def close(self, done: int, finals: Numbers, how: How) -> None:
        """No more will come now; `finals` is empty unless the run has finished."""
