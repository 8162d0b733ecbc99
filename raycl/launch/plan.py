"""What will be sent: the files, the command that sends them, and the name it goes by.

Guarantees: made by pure functions of (command, profile, attempt), so the same command has the
same name and is recognised when it is sent again; it can be printed, and holds no secret.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raycl.config.clusters import Profile
from raycl.config.spec import digest
from raycl.launch.command import Command
from raycl.launch.reach import store_of

DIGITS = 12


@dataclass(frozen=True)
class Plan:
    """One command, ready to be sent in one way."""

    name: str
    """`raycl-` and the digest of what is sent: the same for the same command."""
    attempt: int
    files: Mapping[str, str]
    """By relative path, as they are laid out before sending."""
    argv: tuple[str, ...]
    """What sends them, from the folder that holds the files."""
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    """For the Jobs API: Ray's description of what a job needs."""
    entrypoint: str = ""

    @property
    def id(self) -> str:
        """The name that this attempt goes by."""
        return f"{self.name}-{self.attempt}"

    def text(self) -> str:
        """All of it, to be read."""
        blocks = [f"# {path}\n{content.rstrip()}\n" for path, content in self.files.items()]
        return "\n".join([*blocks, f"$ {shlex.join(self.argv)}"])

    def write(self, folder: Path) -> None:
        """The files under a folder."""
        for path, content in self.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode())


def name_of(command: Command, profile: Profile) -> str:
    """The same for the same command sent to the same kind of place with the same settings."""
    meaning = {
        "args": list(command.args),
        "files": dict(command.files),
        "store": store_of(command, profile),
        "execution": profile.execution.model_dump(mode="json"),
        "env": profile.env,
        "kind": profile.kind,
    }
    return f"raycl-{digest(meaning)[:DIGITS]}"
