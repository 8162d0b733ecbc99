"""What a stream of tasks is made of: the source, its order, its shots, its validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from raycl.config.spec import NotIdentity, Spec
from raycl.errors import ConfigError

_WITH_PATHS = ("embeddings", "folder")
"""The kinds whose name is followed by a colon and paths."""


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
    """scikit-learn's 1,797 real handwritten digits, as images of 8×8."""

    kind: Literal["digits"] = "digits"


class GlyphsStream(_Stream):
    """Letters and digits in fonts that tiny-CLIP never saw, drawn on demand."""

    kind: Literal["glyphs"] = "glyphs"


class TinyXtailStream(_Stream):
    """Five small domains in X-TAIL's protocol: handwritten digits, letters in unseen fonts,
    shapes, textures, colours; one label space."""

    kind: Literal["tiny-xtail"] = "tiny-xtail"


class FolderStream(_Stream):
    """Images in folders named by class, or in Parquet; several are joined domains."""

    kind: Literal["folder"] = "folder"
    paths: tuple[str, ...] = NotIdentity(..., min_length=1)
    corrupt: Literal["refuse", "skip"] = "refuse"
    """What an image that cannot be decoded does: stop the run, or be left out."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of each class that is set aside for testing where the set has no split."""


ImageStream = DigitsStream | GlyphsStream | TinyXtailStream | FolderStream
IMAGE_STREAMS = (DigitsStream, GlyphsStream, TinyXtailStream, FolderStream)

StreamSpec = Annotated[EmbeddingsStream | ImageStream, Field(discriminator="kind")]

STREAMS: tuple[type[Spec], ...] = (EmbeddingsStream, *IMAGE_STREAMS)


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
    judge: Literal["test", "held_out"] = "test"
    """What is evaluated: the test set, or, while hyper-parameters are searched, the held-out
    part of the training data. Of the rest a further part is then held out for the method."""


def parse_stream(text: str) -> dict[str, Any]:
    """What a user may write after --stream: `digits`, `folder:A+B`, `embeddings:A.npz+B.npz`."""
    kind, colon, rest = text.partition(":")
    if kind == "probe":
        raise ConfigError(
            "a probe is evaluated and never trained, so it cannot be the stream",
            got=text,
            do=f"name a stream to learn, and add --probe {rest or 'NAME'}",
        )
    if kind not in _WITH_PATHS or not colon:
        return {"kind": text}
    paths = _split_paths(rest)
    if not paths:
        raise ConfigError(f"no path follows {kind}:", got=text, do=f"write {kind}:PATH")
    return {"kind": kind, "paths": paths}


def parse_probe(text: str) -> dict[str, Any]:
    """What a user may write after --probe: a stream, or `probe:` and a stream."""
    return parse_stream(text.removeprefix("probe:"))


def _split_paths(text: str) -> list[str]:
    # A file whose own name holds a plus sign is one file.
    if text and Path(text).exists():
        return [text]
    return [part for part in text.split("+") if part]
