"""What a stream of tasks is made of: the source, its order, its shots, its validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from raycl.config.spec import NotIdentity, Spec


class _Stream(Spec):
    tasks: int | None = Field(None, ge=1)
    """How many tasks the classes are cut into. Null: a task per domain where several
    domains are joined, else 10 (fewer where there are fewer classes)."""
    shots: int | None = Field(None, ge=1)
    """Training samples kept per class, drawn with `shot_seed`; null keeps all."""
    order_seed: int | None = Field(None, ge=0, lt=2**32)
    shot_seed: int | None = Field(None, ge=0)


class EmbeddingsStream(_Stream):
    """Precomputed vectors from Parquet or npz files; several files are joined domains."""

    kind: Literal["embeddings"] = "embeddings"
    paths: tuple[str, ...] = NotIdentity(..., min_length=1)
    classes: Literal["all", "with_text"] = "all"
    """`with_text` leaves out the classes that have no text vector."""


class DigitsStream(_Stream):
    """scikit-learn's 1,797 real handwritten digits, as raw 64-d pixels."""

    kind: Literal["digits"] = "digits"


StreamSpec = Annotated[EmbeddingsStream | DigitsStream, Field(discriminator="kind")]

STREAMS: tuple[type[Spec], ...] = (EmbeddingsStream, DigitsStream)


class Validation(Spec):
    """What may choose hyper-parameters: never the test data.

    Where a source has a validation set of its own, that is used and never trained on.
    """

    fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the training samples of a class that is split off, at least one."""
    seed: int | None = Field(None, ge=0)
    scope: Literal["first_k", "all"] = "first_k"
    """Which tasks' validation may choose: the first k, or each task as it arrives."""
    first_k: int = Field(3, ge=1)
    refit: bool = True
    """After choosing, learn from training and validation samples together."""


def parse_stream(text: str) -> dict[str, Any]:
    """What a user may write after --stream: `digits`, `embeddings:A.npz+B.parquet`."""
    kind, colon, rest = text.partition(":")
    if kind != "embeddings" or not colon:
        return {"kind": text}
    return {"kind": "embeddings", "paths": _split_paths(rest)}


def _split_paths(text: str) -> list[str]:
    # A file whose own name holds a plus sign is one file.
    if Path(text).exists():
        return [text]
    return [part for part in text.split("+") if part]
