"""Programs of others, played by scripts in a folder that is put first in PATH."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from raycl.launch.runner import ProgramError


class FakeRunner:
    """Answers each program by a function, and remembers what was asked."""

    def __init__(self, answer: Callable[[list[str], Path | None], str]) -> None:
        self._answer = answer
        self.asked: list[list[str]] = []

    def __call__(self, argv: Sequence[str], folder: Path | None = None) -> str:
        self.asked.append(list(argv))
        return self._answer(list(argv), folder)

    def lines(self, argv: Sequence[str]) -> Iterator[str]:
        yield from self(argv).splitlines(keepends=True)


class FakeKubernetes:
    """As much of an API server as RayJobs need."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.owners: dict[str, str] = {}
        self.run = FakeRunner(self._answer)

    def _answer(self, argv: list[str], folder: Path | None) -> str:
        verb = argv[argv.index("--namespace") + 2]
        if verb == "create":
            return self._create(argv, folder)
        if verb == "get":
            return json.dumps({"items": list(self.jobs.values())})
        if verb == "patch":
            patch = json.loads(argv[-1])
            name = argv[argv.index("configmap") + 1]
            self.owners[name] = patch["metadata"]["ownerReferences"][0]["uid"]
        elif verb == "delete":
            del self.jobs[argv[argv.index("rayjob") + 1]]
        elif verb == "logs":
            return "one\ntwo\n"
        return ""

    def _create(self, argv: list[str], folder: Path | None) -> str:
        import yaml

        assert folder is not None
        text = (folder / argv[argv.index("--filename") + 1]).read_text()
        config_map, job = list(yaml.safe_load_all(text))
        name = job["metadata"]["name"]
        if name in self.jobs:
            raise ProgramError(f'kubectl failed: rayjobs "{name}" already exists (AlreadyExists)')
        job["metadata"]["uid"] = f"uid-{name}"
        self.jobs[name] = job
        return json.dumps({"kind": "List", "items": [config_map, job]})

    def end(self, name: str, said: str) -> None:
        """The job has ended."""
        status = {"jobStatus": said, "jobDeploymentStatus": "Complete"}
        self.jobs[name]["status"] = status


def script(folder: Path, name: str, text: str) -> Path:
    """An executable script of that name."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)
    return file
