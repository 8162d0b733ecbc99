"""What a pool of workers promises, and the plain types that cross it.

A worker is a class: one instance is built per worker process and called with each item.
Every pool guarantees that an item's result is yielded exactly once, that items are drawn
lazily and a bounded number is in flight, that an item whose worker raised or died runs
again up to `attempts` times, and that one hopeless item does not cost the others theirs:
its error is raised after they were yielded.

Not guaranteed: the order of results, and that an item runs only once. A worker may die
after its work and before its answer, so items are idempotent and name what they make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from raycl.errors import ConfigError, WorkError

DEFAULT_ATTEMPTS = 3


@dataclass(frozen=True)
class Resources:
    """What one worker holds while it lives."""

    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        if self.cpus < 0 or self.gpus < 0:
            raise ConfigError(
                "a worker cannot hold a negative share",
                got=f"cpus={self.cpus:g}, gpus={self.gpus:g}",
                do="use zero or more of each",
            )

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU, {self.gpus:g} GPU"


@dataclass(frozen=True)
class WorkerSpec:
    """How to build a worker, in whatever process it is to live."""

    cls: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(getattr(self.cls, "__name__", self.cls))

    def build(self) -> Any:
        """A new instance, in this process."""
        return self.cls(*self.args, **self.kwargs)


class Reference(Protocol):
    """A value that stays where it was made; it may travel inside items and arguments."""

    def get(self) -> Any:
        """The value, from any process that holds the reference; read-only by contract."""


class LostReferenceError(WorkError):
    """The process or node that held a referenced value is gone; make the value again."""


@dataclass(frozen=True)
class Done:
    """One finished item: its position in the input, itself, and its value."""

    index: int
    item: Any
    value: Any


class Service(Protocol):
    """One stateful object, shared by name; its methods run one at a time."""

    def call(self, method: str, *args: Any) -> Any:
        """The method's result. A call may be repeated after a fault: keep it idempotent."""

    def end(self) -> None:
        """Ends the service for everybody; the next `service(name)` builds a new one."""


DEFAULT_RESOURCES = Resources()


class Pool(Protocol):
    """Workers for independent, idempotent items; see the module for what is promised."""

    @property
    def workers(self) -> int:
        """How many workers may run at the same time."""

    def map_unordered(
        self,
        worker: WorkerSpec,
        items: Iterable[Any],
        *,
        resources: Resources | None = None,
        attempts: int = DEFAULT_ATTEMPTS,
    ) -> Iterator[Done]:
        """Each item's value as it finishes. Leaving the iterator early frees the workers.

        Without `resources` a worker holds what the pool was told, by default one CPU.
        """

    def put(self, value: Any) -> Reference:
        """Shares a value once, to be named in many items."""

    def get(self, reference: Reference) -> Any:
        """The value behind a reference."""

    def service(self, name: str, worker: WorkerSpec) -> Service:
        """The service of that name, built if there is none; it holds no CPU."""

    def close(self) -> None:
        """Frees every worker of this pool. Services live on."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
