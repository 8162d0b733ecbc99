"""Writes synthesised images as a folder that stands alone.

    images-00000.parquet …   image (bytes of a lossless WebP), prompt, seed, sha256, and the
                             columns that came with the prompts
    manifest.jsonl           a line for every prompt, also for those that have no image
    manifest.json            the spec, the counts, and each shard with its SHA-256
    contact-sheet.png        some of them at a glance

Guarantees: whole files or none, `manifest.json` last; the same images give the same bytes; the
memory of one shard.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from raycl.config.spec import described
from raycl.errors import DataError, StoreError
from raycl.synthesis.models import model_digest
from raycl.synthesis.synthesise import Images
from raycl.whole_files import whole_file

SHARD_BYTES = 64 << 20
OWN = ("image", "prompt", "seed", "sha256", "index")
MANIFEST, ROWS, SHEET = "manifest.json", "manifest.jsonl", "contact-sheet.png"
FORMAT = 1
CELL, CAPTION, COLUMNS, MOST = 96, 24, 10, 100
"""Of the contact sheet: pixels of a cell and of its caption, cells across, and in all."""


def refuse_unwritable(folder: Path) -> None:
    """What could not be written is refused before hours of work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{secrets.token_hex(4)}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(
            f"images cannot be written there: {error.strerror or error}",
            got=str(folder),
            do="name another folder with --out",
        ) from error


def refuse_columns(names: Sequence[str]) -> None:
    """Columns beside the prompts that the images would hide."""
    taken = [name for name in names if name in OWN]
    if taken:
        raise DataError(
            "columns of the prompts have names that are needed for the images",
            got=", ".join(taken),
            do="rename or leave them out",
        )


def write_images(images: Images, columns: Mapping[str, Sequence[Any]], folder: Path) -> Path:
    """The manifest of a folder that holds all of it."""
    refuse_unwritable(folder)
    refuse_columns(list(columns))
    try:
        shards = [_write_shard(images, columns, folder, *part) for part in enumerate(_cut(images))]
        _remove_others(folder, {shard["file"] for shard in shards})
        with whole_file(folder / ROWS) as aside:
            lines = (json.dumps(row, ensure_ascii=False) for row in images.manifest)
            aside.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        with whole_file(folder / SHEET) as aside:
            contact_sheet(images).save(aside, "PNG")
        with whole_file(folder / MANIFEST) as aside:
            aside.write_text(json.dumps(_summary(images, shards), indent=1) + "\n", "utf-8")
    except StoreError:
        raise
    except OSError as error:
        raise DataError(
            f"the images cannot be written: {error.strerror or error}", got=str(folder)
        ) from error
    return folder / MANIFEST


def _cut(images: Images) -> Iterator[list[int]]:
    """The numbers of the images of each shard: as many as its bytes take, at least one."""
    part: list[int] = []
    total = 0
    for number, note in enumerate(images.notes):
        if note["fault"]:
            continue
        if part and total + note["bytes"] > SHARD_BYTES:
            yield part
            part, total = [], 0
        part.append(number)
        total += note["bytes"]
    if part:
        yield part


def _write_shard(
    images: Images,
    columns: Mapping[str, Sequence[Any]],
    folder: Path,
    number: int,
    part: Sequence[int],
) -> dict[str, Any]:
    table = pa.table(
        {
            "index": pa.array(part, pa.int64()),
            "image": pa.array([images.pixels(i) for i in part], pa.binary()),
            "prompt": [images.prompts[i].text for i in part],
            "seed": pa.array([images.prompts[i].seed for i in part], pa.int64()),
            "sha256": [images.notes[i]["sha256"] for i in part],
            **{name: _column(name, values, part) for name, values in columns.items()},
        }
    )
    file = folder / f"images-{number:05d}.parquet"
    with whole_file(file) as aside:
        pq.write_table(table, aside, compression="none", row_group_size=256)
        with aside.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"file": file.name, "images": len(part), "sha256": digest}


def _column(name: str, values: Sequence[Any], part: Sequence[int]) -> pa.Array:
    try:
        return pa.array([values[i] for i in part])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"the column {name!r} holds values of several kinds", got=str(error)
        ) from error


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Shards of an earlier, longer set."""
    for file in folder.glob("images-[0-9][0-9][0-9][0-9][0-9].parquet"):
        if file.name not in kept:
            file.unlink()


def _summary(images: Images, shards: list[dict[str, Any]]) -> dict[str, Any]:
    faults = [note["fault"] for note in images.notes]
    return {
        "raycl": FORMAT,
        "synthesis": described(images.spec),
        "model_digest": model_digest(images.spec),
        "prompts": len(images),
        "images": len(images) - len(images.left_out),
        "left_out": {fault: faults.count(fault) for fault in sorted(set(faults) - {""})},
        "painted_again": sum(note["tries"] - 1 for note in images.notes),
        "prompts_cut": sum(note["tokens_cut"] > 0 for note in images.notes),
        "shards": shards,
    }


def contact_sheet(images: Images) -> Image.Image:
    """Images from the whole set, evenly spread, each over its prompt."""
    there = sorted(set(range(len(images))) - set(images.left_out))
    step = max(1, -(-len(there) // MOST))
    chosen = there[::step]
    rows = -(-len(chosen) // COLUMNS)
    width = COLUMNS * (CELL + 4)
    sheet = Image.new("RGB", (width, max(1, rows) * (CELL + CAPTION + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, number in enumerate(chosen):
        x = place % COLUMNS * (CELL + 4) + 2
        y = place // COLUMNS * (CELL + CAPTION + 4) + 2
        sheet.paste(_fitted(images.image(number)), (x, y))
        for line, text in enumerate(_lines(images.prompts[number].text)):
            draw.text((x, y + CELL + 1 + 11 * line), text, fill="black", font_size=9)
    return sheet


def _fitted(image: Image.Image) -> Image.Image:
    """At the size of a cell: small pictures by whole pixels, large ones shrunk."""
    cell = Image.new("RGB", (CELL, CELL), "white")
    scale = CELL / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    cell.paste(image.resize((size[0], size[1]), way))
    return cell


def _lines(text: str, width: int = 18) -> tuple[str, str]:
    plain = "".join(c if c.isprintable() else " " for c in text)
    rest = plain[width:].strip()
    return plain[:width], rest if len(rest) <= width else f"{rest[: width - 1]}…"
