"""What a stream of tasks is made of: the source, its order, its shots, its validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raycl.config.places import is_there
from raycl.config.sources.catalogue import entry_of, parse_names, title_of
from raycl.config.spec import NotIdentity, Spec
from raycl.errors import ConfigError

_WITH_PATHS = ("embeddings", "folder", "hf")
"""The kinds whose name is followed by a colon and paths."""


class _Stream(Spec):
    tasks: int | None = Field(None, ge=1)
    """How many tasks the classes are cut into. Null: a task per domain where several
    domains are joined, else 10 (fewer where there are fewer classes)."""
    shots: int | None = Field(None, ge=1)
    """Training samples kept per class, drawn with `shot_seed`; null keeps all."""
    increments: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(None, min_length=1)
    """In place of `tasks`: the classes of each task; the last number goes on (50, 5 is B50-5)."""
    per_domain: int | None = Field(None, ge=1)
    """Tasks that each of several joined domains is cut into, domain after domain."""
    order: Literal["mammoth", "pycil", "source"] = "mammoth"
    """How `order_seed` permutes classes: class c becomes number p[c], as in mammoth and CGIL;
    class p[0] comes first, as in PyCIL and iCaRL; or the data set's own order."""
    order_seed: int | None = Field(None, ge=0, lt=2**32)
    shot_seed: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _one_way_to_cut(self) -> Self:
        given = [n for n in ("tasks", "increments", "per_domain") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} each say where tasks end; give one")
        return self

    @property
    def title(self) -> str:
        """What a store calls it."""
        return str(getattr(self, "kind", ""))

    def with_usual_tasks(self) -> Self:
        """The same with as many tasks as papers cut it into, where nothing else is asked for."""
        return self


class Columns(Spec):
    """What the columns of a Parquet file of vectors are called."""

    embedding: str = "embedding"
    label: str = "label"
    class_name: str = "class_name"
    split: str = "split"
    domain: str = "domain"


class EmbeddingsStream(_Stream):
    """Precomputed vectors from Parquet or npz files; several files are joined domains."""

    kind: Literal["embeddings"] = "embeddings"
    paths: tuple[str, ...] = NotIdentity(..., min_length=1)
    columns: Columns = Columns()
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of each class that is set aside for testing where Parquet names no split."""
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


class ImageFiles(_Stream):
    """Images that somebody made, which may be broken and may lack a split."""

    corrupt: Literal["refuse", "skip"] = "refuse"
    """What an image that cannot be decoded does: stop the run, or be left out."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of each class that is set aside for testing where the set has no split."""


class FolderStream(ImageFiles):
    """Images in folders named by class, or in Parquet; several are joined domains."""

    kind: Literal["folder"] = "folder"
    paths: tuple[str, ...] = NotIdentity(..., min_length=1)


class HubStream(ImageFiles):
    """Data sets of the Hugging Face hub, or folders that its library wrote."""

    kind: Literal["hf"] = "hf"
    paths: tuple[str, ...] = NotIdentity(..., min_length=1)
    """ORG/NAME, or folders of Parquet or Arrow files; several are joined domains."""
    root: str | None = NotIdentity(None)
    """Of data sets; null: RAYCL_DATA."""
    image: str | None = None
    """The column of images; null: the only one there is."""
    label: str | None = None
    """The column of labels; null: `label`, or the only one of classes."""


class NamedStream(ImageFiles):
    """Data sets that raycl knows by name, below the root of data sets; several are joined."""

    kind: Literal["named"] = "named"
    names: tuple[str, ...] = Field(..., min_length=1)
    root: str | None = NotIdentity(None)
    """Of data sets; null: RAYCL_DATA."""
    own_val: Literal["hold", "train"] = "hold"
    """What becomes of a data set's own validation images: held out, or learnt from too."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.names:
            entry_of(name)
        return self

    @property
    def title(self) -> str:
        return title_of(self.names)

    def with_usual_tasks(self) -> Self:
        asked = (self.tasks, self.increments, self.per_domain)
        if len(self.names) > 1 or any(one is not None for one in asked):
            return self
        return self.model_copy(update={"tasks": entry_of(self.names[0]).tasks})


ImageStream = DigitsStream | GlyphsStream | TinyXtailStream | FolderStream | HubStream | NamedStream
IMAGE_STREAMS = (
    DigitsStream,
    GlyphsStream,
    TinyXtailStream,
    FolderStream,
    HubStream,
    NamedStream,
)

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


OF_TASKS: dict[str, Any] = {
    "tasks": None,
    "increments": None,
    "per_domain": None,
    "order": "mammoth",
    "shots": None,
    "order_seed": None,
    "shot_seed": None,
}
"""What says what becomes of a stream's samples, not which they are, each as if not given."""


def images_alone(spec: ImageStream) -> ImageStream:
    """The stream as far as it says which images there are, for what is made of each."""
    update = {**OF_TASKS, "own_val": "hold"} if isinstance(spec, NamedStream) else OF_TASKS
    return spec.model_copy(update=update)


def parse_stream(text: str) -> dict[str, Any]:
    """What a user may write after --stream: `digits`, `cifar100`, `folder:A+B`, `hf:ORG/NAME`."""
    kind, colon, rest = text.partition(":")
    if kind == "probe":
        raise ConfigError(
            "a probe is evaluated and never trained, so it cannot be the stream",
            got=text,
            do=f"name a stream to learn, and add --probe {rest or 'NAME'}",
        )
    if kind not in _WITH_PATHS or not colon:
        names = parse_names(text)
        return {"kind": text} if names is None else {"kind": "named", "names": list(names)}
    paths = _split_paths(rest)
    if not paths:
        raise ConfigError(f"no path follows {kind}:", got=text, do=f"write {kind}:PATH")
    return {"kind": kind, "paths": paths}


def parse_probe(text: str) -> dict[str, Any]:
    """What a user may write after --probe: a stream, or `probe:` and a stream."""
    return parse_stream(text.removeprefix("probe:"))


def _split_paths(text: str) -> list[str]:
    # A file whose own name holds a plus sign is one file.
    if text and is_there(Path(text)):
        return [text]
    return [part for part in text.split("+") if part]
