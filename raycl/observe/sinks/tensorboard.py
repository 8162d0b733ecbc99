"""TensorBoard: an event file per start of a run, all in the run's own folder."""

from __future__ import annotations

import json
import secrets

from tensorboardX import SummaryWriter

from raycl.observe.sinks.sink import How, Numbers, Subject

FINAL = "final/"


class TensorBoard:
    """Scalars by task, the config as text."""

    def __init__(self, subject: Subject) -> None:
        # Its files are named by the second, and a later start must not overwrite an earlier one.
        suffix = f".{secrets.token_hex(4)}"
        self._writer = SummaryWriter(str(subject.folder), filename_suffix=suffix)
        config = json.dumps(dict(subject.config), indent=2, sort_keys=True)
        self._writer.add_text("config", f"```\n{config}\n```")

    def tell(self, done: int, values: Numbers) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, done)
        self._writer.flush()

    def close(self, done: int, finals: Numbers, how: How) -> None:
        for name, value in finals.items():
            self._writer.add_scalar(FINAL + name, value, done)
        self._writer.close()
