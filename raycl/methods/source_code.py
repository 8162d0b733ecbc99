"""A user's method file as text and digest: found, named and shipped without running it.

The digest of the text enters the key; the text travels to the learner, so a cluster needs
no copy of the file. Needs no torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from raycl.config.places import at_home
from raycl.config.spec import DIGEST_LENGTH
from raycl.errors import ConfigError


@dataclass(frozen=True)
class SourceCode:
    """The text of a module and the class in it (empty: the only method class)."""

    name: str
    text: str
    class_name: str

    @property
    def file(self) -> str:
        """What tracebacks call it."""
        return f"{self.name}.py"

    @property
    def digest(self) -> str:
        text = f"{self.class_name}\n{self.text}"
        return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def read_source_code(target: str) -> SourceCode:
    """The code behind `mine.py`, `mine.py:Class` or `module:Class`."""
    place, _, class_name = target.partition(":")
    path = at_home(place) if place.endswith(".py") else _module_file(place)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the method file cannot be read", got=place, do=str(error)) from error
    return SourceCode(path.stem, text, class_name)


def _module_file(module: str) -> Path:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise ConfigError("no such module", got=module, do=str(error)) from error
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ConfigError(
            "no such module of Python source",
            got=module,
            do="write path/to/file.py, or module:Class for an installed module",
        )
    return Path(spec.origin)
