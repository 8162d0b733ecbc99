"""The data sets that raycl knows by name, and the streams that are made of several.

Guarantees: asking for names reads no table, and one entry reads one. Names are as a user
writes them; other spellings of the same data set lead to it.
"""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from raycl.config.sources.entry import Entry
from raycl.errors import ConfigError

TABLES = Path(__file__).parent / "tables"
_STREAMS = "streams.yaml"


@cache
def source_names() -> tuple[str, ...]:
    """Every data set by its name."""
    return tuple(sorted(path.stem for path in TABLES.glob("*.yaml") if path.name != _STREAMS))


@cache
def entry_of(name: str) -> Entry:
    """What is known of a data set."""
    if name not in source_names():
        close = difflib.get_close_matches(name, known_names(), n=3, cutoff=0.5)
        raise ConfigError(
            "no data set has this name",
            got=name,
            do=(f"did you mean {' or '.join(close)}? " if close else "")
            + f"Names are {', '.join(known_names())}; your own images are folder:PATH or hf:NAME",
        )
    return Entry.model_validate({"name": name, **_read(TABLES / f"{name}.yaml")})


def override(entry: Entry, tree: dict[str, Any], place: Path) -> Entry:
    """The entry as a file beside the data corrects it: a part of a set, told and not silent."""
    allowed = ("classes", "counts", "per_class", "checksums", "about")
    wrong = [name for name in tree if name not in allowed]
    if wrong:
        raise ConfigError(
            f"{place.name} may not set {', '.join(wrong)}",
            got=str(place),
            do=f"it corrects {', '.join(allowed)}",
        )
    layouts = entry.layouts
    if "counts" in tree:
        layouts = tuple(
            layout.model_copy(update={"counts": None}) if layout.kind == "files" else layout
            for layout in layouts
        )
    try:
        return Entry.model_validate({**entry.model_dump(), "layouts": layouts, **tree})
    except ValidationError as error:
        raise ConfigError(
            f"{place.name} cannot be understood", got=str(place), do=str(error).splitlines()[-1]
        ) from error


@cache
def joined_streams() -> dict[str, tuple[str, ...]]:
    """Streams of several data sets: their names, and the data sets in order."""
    return {name: tuple(of) for name, of in _read(TABLES / _STREAMS)["streams"].items()}


@cache
def spellings() -> dict[str, str]:
    """Other names of a data set or stream."""
    return dict(_read(TABLES / _STREAMS)["spellings"])


def known_names() -> list[str]:
    """All that may stand after --stream without a colon, but for what raycl draws itself."""
    return [*source_names(), *joined_streams()]


def parse_names(text: str) -> tuple[str, ...] | None:
    """The data sets that `cifar100`, `xtail` or `cifar100+imagenet-r` names; None if none."""
    found: list[str] = []
    for part in text.lower().split("+"):
        name = spellings().get(part, part)
        if name in joined_streams():
            found += joined_streams()[name]
        elif name in source_names():
            found.append(name)
        else:
            return None
    return tuple(found)


def title_of(names: tuple[str, ...]) -> str:
    """What a stream of these data sets is called."""
    called = {of: name for name, of in joined_streams().items()}
    return called.get(names) or "+".join(names)


def _read(path: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(path.read_text("utf-8"))
    try:
        tree = loader.get_single_data()
    finally:
        loader.dispose()
    assert isinstance(tree, dict), path
    return tree
