"""What a stream's data *is*, as digests: the parents of every key. Needs no torch.

Paths never enter a key; the bytes behind them do. So a copied or moved file hits, and
an edited one misses.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import assert_never

from raycl.config.places import expanded, is_file, is_folder
from raycl.config.spec import digest
from raycl.config.streams import (
    DigitsStream,
    EmbeddingsStream,
    FolderStream,
    GlyphsStream,
    HubStream,
    NamedStream,
    StreamSpec,
    TinyXtailStream,
)
from raycl.drawing.fonts import DRAWING_REVISION, HELD_OUT_FONTS, font_file
from raycl.errors import DataError
from raycl.store.file_digest import file_digest
from raycl.streams.folder_digest import folder_digest
from raycl.streams.folders import find_images
from raycl.streams.hub_sets import hub_digest, resolve_hub
from raycl.streams.sources.content import source_digest
from raycl.streams.sources.placing import data_root

SUFFIXES = (".npz", ".parquet")


def content_digests(stream: StreamSpec) -> tuple[str, ...]:
    """The digest of each file, folder or set of drawings that the stream reads, in order."""
    match stream:
        case DigitsStream():
            return (file_digest(digits_file()),)
        case GlyphsStream():
            return (_drawing_digest(),)
        case TinyXtailStream():
            return file_digest(digits_file()), _drawing_digest()
        case EmbeddingsStream():
            return tuple(file_digest(path) for path in files_of(stream))
        case FolderStream():
            return tuple(_images_digest(resolve_images(path)) for path in stream.paths)
        case HubStream():
            return tuple(hub_digest(resolve_hub(path, stream.root)) for path in stream.paths)
        case NamedStream():
            return tuple(source_digest(name, stream.root) for name in stream.names)
        case _:
            assert_never(stream)


def _images_digest(place: Path) -> str:
    if is_file(place):
        return file_digest(place)
    return folder_digest(place, [image.relative for image in find_images(place).images])


def _drawing_digest() -> str:
    """What decides the pixels of a drawing, besides the numbers it is drawn from."""
    fonts = [file_digest(font_file(name)) for name in HELD_OUT_FONTS]
    return digest([DRAWING_REVISION, fonts, importlib.metadata.version("pillow")])


def files_of(stream: EmbeddingsStream) -> list[Path]:
    """The files behind a stream of vectors, each known to exist."""
    return [resolve_path(path) for path in stream.paths]


def with_absolute_paths(stream: StreamSpec) -> StreamSpec:
    """The same stream for a process that works in another folder or environment."""
    match stream:
        case EmbeddingsStream():
            paths = [resolve_path(path) for path in stream.paths]
        case FolderStream():
            paths = [resolve_images(path) for path in stream.paths]
        case HubStream():
            paths = [resolve_hub(path, stream.root) for path in stream.paths]
        case NamedStream():
            return stream.model_copy(update={"root": str(data_root(stream.root).absolute())})
        case _:
            return stream
    return stream.model_copy(update={"paths": tuple(str(path.absolute()) for path in paths)})


def resolve_path(text: str) -> Path:
    """The file of an embedding set; `$RAYCL_DATA` stands for the root of data sets."""
    path = expanded(text)
    if is_folder(path):
        raise DataError(
            "an embedding set is a file, and this is a folder",
            got=str(path),
            do=f"images are read with folder:{path}",
        )
    if not is_file(path):
        raise DataError("no such data file", got=str(path), do=_nearby(path, SUFFIXES))
    if path.suffix not in SUFFIXES:
        raise DataError(
            "an embedding set must be a .npz or .parquet file", got=path.name, do="convert it"
        )
    return path


def resolve_images(text: str) -> Path:
    """A folder of images or a Parquet file of them, as the user wrote it."""
    path = expanded(text)
    if is_folder(path):
        return path
    if not is_file(path):
        raise DataError("no such folder of images", got=str(path), do=_nearby(path, (".parquet",)))
    if path.suffix != ".parquet":
        raise DataError(
            "images are read from a folder or a .parquet file",
            got=path.name,
            do="name the folder whose folders are the classes"
            if path.suffix not in SUFFIXES
            else f"vectors are read with embeddings:{path}",
        )
    return path


def _nearby(path: Path, suffixes: tuple[str, ...]) -> str:
    if not is_folder(path.parent):
        return f"the folder {path.parent} does not exist either: check the path"
    also_folders = suffixes != SUFFIXES
    siblings = [
        p.name
        for p in path.parent.iterdir()
        if p.suffix in suffixes or (also_folders and p.is_dir())
    ]
    close = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else "check the path"


def digits_file() -> Path:
    """scikit-learn's own copy of the digits, found without importing scikit-learn."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError("scikit-learn is not installed", do="pip install scikit-learn")
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
