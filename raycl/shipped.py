"""Where the shipped data folders, `search_spaces/` and `clusters/`, are found.

They lie at the root of a checkout and under `raycl/_data/` in an installed wheel.
A bare name means a shipped file, in whatever subfolder; a name with a suffix or a slash
means a path.
Standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path

from raycl.errors import ConfigError

_SUFFIXES = (".yaml", ".yml", ".json")
SCHEMA = ".schema"
"""How the name of a file ends, before its suffix, that only editors read."""


def folder(name: str) -> Path:
    """The shipped folder of that name, in a wheel or in a checkout."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "_data" / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise ConfigError(
        f"the shipped folder {name!r} is missing from this installation",
        do="install raycl again from a wheel or a checkout",
    )


def names(folder_name: str) -> list[str]:
    """Shipped names under a folder, as a user would write them."""
    return list(files(folder_name))


def files(folder_name: str) -> dict[str, Path]:
    """Every shipped file below a folder by its bare name, those at the top first."""
    below = (p for p in folder(folder_name).rglob("*") if p.suffix in _SUFFIXES)
    found: dict[str, Path] = {}
    for path in sorted(below, key=lambda p: (len(p.parts), p)):
        if not path.stem.endswith(SCHEMA):
            found.setdefault(path.stem, path)
    return found


def is_bare(name: str) -> bool:
    """Whether a name means a shipped file rather than a path."""
    return "/" not in name and Path(name).suffix == ""


def find(name: str, *folders: str) -> Path:
    """The file a user means by a name: a path as it is, a bare name among the shipped."""
    if not is_bare(name):
        path = Path(os.path.expanduser(name))  # noqa: PTH111 - keeps a user it does not know
        if not os.path.isfile(path):  # noqa: PTH113 - a name too long for a disk is no error
            raise ConfigError("no such file", got=name, do="check the path")
        return path
    shipped = [n for f in folders for n in names(f)]
    for folder_name in folders:
        if name in (found := files(folder_name)):
            return found[name]
    raise ConfigError(
        "no shipped file has this name",
        got=name,
        do=f"use one of {', '.join(shipped)}, or a path with a suffix",
    )
