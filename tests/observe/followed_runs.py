"""Reads what sinks wrote: TensorBoard's records and Weights & Biases' log, without either."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 60.0


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Every scalar of every event file of a folder: its name, step and value."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.glob("events.out.*")):
        data, place = file.read_bytes(), 0
        while place + 12 <= len(data):
            (size,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + size])
            place += 12 + size + 4
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.append((value.tag, event.step, value.simple_value))
    return found


def offline_runs(root: Path) -> list[dict[str, Any]]:
    """Each start of a run: its id and group, the metrics of each step, how it ended.

    W&B's own process may still be writing when `finish` has returned: the last record is awaited.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = [_offline_run(file) for file in sorted(root.glob("wandb/offline-run-*/*.wandb"))]
        if found and all("exit" in run for run in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"a run without an end: {found}")


def _offline_run(file: Path) -> dict[str, Any]:
    out: dict[str, Any] = {"steps": {}, "summary": {}}
    for record in _records(file):
        match record.WhichOneof("record_type"):
            case "run":
                out |= {"id": record.run.run_id, "group": record.run.run_group}
            case "history":
                items = record.history.item
                values = {i.key or i.nested_key[0]: json.loads(i.value_json) for i in items}
                out["steps"][record.history.step.num] = values
            case "summary":
                for update in record.summary.update:
                    name = update.key or update.nested_key[0]
                    out["summary"][name] = json.loads(update.value_json)
            case "exit":
                out["exit"] = record.exit.exit_code
    return out


def _records(file: Path) -> Iterator[Any]:
    """LevelDB's log format: blocks of 32 KiB, records cut at their borders."""
    from wandb.proto.wandb_internal_pb2 import Record

    block, data, place, parts = 32768, file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = block - place % block
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        if place + 7 + size > len(data):
            return  # half written
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""
