"""Writes fitted generators as one file that stands alone, and reads it back.

`bank.safetensors` holds the tensors with a leading class axis and, as its metadata, the spec,
the names and the seeds; `classes.json` beside it tells people the same, and what is known of
each class. Guarantees: a whole file or none; written class by class, so that memory is one
class's; nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from pydantic import TypeAdapter
from torch import Tensor

from raycl.config.generators import GeneratorSpec
from raycl.config.places import at_home, is_file, is_folder
from raycl.config.spec import described
from raycl.errors import DataError, StoreError
from raycl.fitting.fitted import Fitted, Shapes
from raycl.generators.bank import Bank
from raycl.generators.build import fits_per_class, restore_bank
from raycl.generators.fitting import AnyBank
from raycl.whole_files import whole_file

BANK, CLASSES = "bank.safetensors", "classes.json"
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}
FORMAT = "1"


@dataclass(frozen=True, eq=False)
class SavedBank:
    """A bank and whose it is, in the bank's order."""

    generator: GeneratorSpec
    names: tuple[str, ...]
    streams: tuple[int, ...]
    """The seed of each class's fit."""
    bank: AnyBank


def write_bank(fitted: Fitted, folder: Path) -> Path:
    """The bank and its table of classes in a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / BANK) as aside, aside.open("xb") as file:
            if fits_per_class(fitted.generator):
                _write_by_class(fitted, file)
            else:
                file.write(
                    safetensors.torch.save(fitted.bank.state_dict(), metadata=_metadata(fitted))
                )
        with whole_file(folder / CLASSES) as aside:
            aside.write_text(json.dumps(_table(fitted), indent=1), "utf-8")
    except StoreError:
        raise
    except OSError as error:
        raise DataError(
            f"the bank cannot be written: {error.strerror or error}", got=str(folder)
        ) from error
    return folder / BANK


def _metadata(fitted: Fitted) -> dict[str, str]:
    generator = fitted.generator.model_dump(mode="json")
    return {
        "raycl": FORMAT,
        "generator": json.dumps(generator),
        "names": json.dumps(fitted.names),
        "streams": json.dumps(fitted.streams),
    }


def _table(fitted: Fitted) -> dict[str, Any]:
    classes = [
        {**asdict(c.notes), "stream": c.stream, "key": c.artefact.key} for c in fitted.classes
    ]
    return {"generator": described(fitted.generator), "classes": classes}


def _write_by_class(fitted: Fitted, file: BinaryIO) -> None:
    """The format's own layout: eight bytes of length, a JSON header, the tensors in a row."""
    shapes = fitted.shapes()
    begins: dict[str, int] = {}
    for place, state in enumerate(fitted.states()):
        if place == 0:
            begins = _write_header(file, shapes, state, _metadata(fitted))
        for name, tensor in state.items():
            row = _padded(tensor[0], shapes[name][1:])
            file.seek(begins[name] + place * row.nbytes)
            file.write(row.numpy().tobytes())


def _write_header(
    file: BinaryIO, shapes: Shapes, state: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> dict[str, int]:
    """Where in the file each tensor begins. The widest types come first, to be aligned."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    begins: dict[str, int] = {}
    end = 0
    for name in sorted(state, key=lambda name: (-state[name].element_size(), name)):
        begins[name] = end
        end += torch.Size(shapes[name]).numel() * state[name].element_size()
        header[name] = {
            "dtype": DTYPES[state[name].dtype],
            "shape": list(shapes[name]),
            "data_offsets": [begins[name], end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    first = file.tell()
    file.truncate(first + end)
    return {name: first + begin for name, begin in begins.items()}


def _padded(row: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(row.shape) == shape:
        return row
    out = row.new_zeros(shape)
    out[tuple(slice(length) for length in row.shape)] = row
    return out


def read_bank(path: str | Path) -> SavedBank:
    """The bank in a folder that `raycl fit --out` wrote, or in the file itself."""
    place = at_home(path)
    place = place / BANK if is_folder(place) else place
    if not is_file(place):
        raise DataError("there is no bank here", got=str(place), do="write one: raycl fit --out")
    try:
        with safetensors.safe_open(place, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(
            f"{place.name} is not a whole safetensors file", got=str(error), do="write it again"
        ) from error
    return _opened(place, metadata, tensors)


def _opened(place: Path, metadata: Mapping[str, str], tensors: dict[str, Tensor]) -> SavedBank:
    try:
        if metadata["raycl"] != FORMAT:
            raise ValueError(f"format {metadata['raycl']}, where {FORMAT} is known")
        spec: GeneratorSpec = TypeAdapter(GeneratorSpec).validate_python(
            json.loads(metadata["generator"])
        )
        names, streams = json.loads(metadata["names"]), json.loads(metadata["streams"])
        bank: Bank[Any] = restore_bank(spec, tensors)
        if not len(bank) == len(names) == len(streams):
            raise ValueError(f"{len(bank)} classes and {len(names)} names")
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{place.name} is not a bank of generators",
            got=f"{type(error).__name__}: {error}",
            do="write one: raycl fit --out",
        ) from error
    return SavedBank(spec, tuple(names), tuple(streams), bank)
