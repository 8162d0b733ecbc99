"""The files that a text-to-image model is made of, found by its name. Needs no torch.

    tiny-sd        the folder that raycl brings along
    FOLDER         as diffusers saves a pipeline: model_index.json and a folder per part
    ORG/REPO       the same on the Hugging Face hub, or in its local cache

Guarantees that every part the index names is there, whole, with weights as safetensors, before
anything is loaded; nothing is ever unpickled. What the parts are, is told by their digest.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raycl.backbones.hub import refusal
from raycl.config.places import expanded, is_folder
from raycl.config.spec import digest
from raycl.config.synthesis import TINY_SD, Synthesis
from raycl.errors import ConfigError, DataError
from raycl.store.file_digest import file_digest
from raycl.synthesis.tiny import INDEX_FILE, PIPELINE

SAFE = ".safetensors"
SAFETY_PARTS = ("safety_checker", "feature_extractor", "image_encoder")
TEXT_FILES = (".json", ".txt", ".model")
NEEDED = {
    "tokenizer": ("tokenizer.json", "vocab.json", "spiece.model"),
    "scheduler": ("scheduler_config.json",),
    "feature_extractor": ("preprocessor_config.json",),
}
"""Parts without weights, and files of which one must be there; all others need a config.json
and weights."""
DOWNLOADED = ("*.json", "*.txt", "*.model", f"*{SAFE}")


@dataclass(frozen=True)
class ModelFiles:
    """A pipeline's folder and which of its parts are wanted."""

    folder: Path
    parts: tuple[str, ...]

    def files(self) -> Iterator[Path]:
        """Every file that is read, in a fixed order."""
        yield self.folder / INDEX_FILE
        for part in self.parts:
            for file in sorted((self.folder / part).iterdir()):
                if file.suffix in TEXT_FILES or _are_weights(file):
                    yield file

    @property
    def weight_bytes(self) -> int:
        """What the weights take on the disk."""
        return sum(file.stat().st_size for file in self.files() if file.suffix == SAFE)


def model_files(spec: Synthesis) -> ModelFiles:
    """Where the pipeline of a spec lies, complete."""
    folder = _folder(spec.model)
    index = _index(spec.model, folder)
    unwanted = () if spec.safety == "detect" else SAFETY_PARTS
    parts = tuple(
        name
        for name, value in sorted(index.items())
        if isinstance(value, list) and value[:1] != [None] and name not in unwanted
    )
    missing = [what for part in parts for what in _missing(folder, part)]
    if missing:
        raise DataError(
            f"the folder of the model {spec.model!r} is incomplete: it lacks {', '.join(missing)}",
            got=str(folder),
            do="copy it again, or save it anew with diffusers' save_pretrained",
        )
    if spec.safety == "detect" and "safety_checker" not in parts:
        raise ConfigError(
            "the model has no safety checker that could detect anything",
            got=spec.model,
            do="set safety=off, or use a model that has one",
        )
    return ModelFiles(folder, parts)


def model_digest(spec: Synthesis) -> str:
    """The digest of all that the pipeline is made of, wherever it lies."""
    found = model_files(spec)
    names = [(str(f.relative_to(found.folder)), file_digest(f)) for f in found.files()]
    return digest([[name, content] for name, content in names])


def _folder(name: str) -> Path:
    if name == TINY_SD:
        return PIPELINE
    folder = expanded(name)
    if is_folder(folder):
        return folder
    looks_like_a_path = name.startswith((".", "/", "~", "$")) or name.count("/") != 1
    if not looks_like_a_path:
        return _snapshot(name)
    siblings = [p.name for p in folder.parent.iterdir()] if is_folder(folder.parent) else []
    close = difflib.get_close_matches(folder.name, [TINY_SD, *siblings], n=2, cutoff=0.5)
    raise DataError(
        "no such text-to-image model",
        got=name,
        do=(f"did you mean {' or '.join(close)}? " if close else "")
        + f"Name {TINY_SD}, a folder that diffusers saved, or ORG/REPO on the hub",
    )


def _snapshot(repo: str) -> Path:
    """The repository in the Hugging Face cache, fetched if it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    what = f"the model {repo} is not on this machine"
    do = (
        f"fetch it where there is a network (hf download {repo}) and copy the Hugging Face cache "
        f"here, or name its folder, or use {TINY_SD}, which needs no file"
    )
    patterns = list(DOWNLOADED)
    try:
        return Path(snapshot_download(repo, allow_patterns=patterns, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass
    why = refusal()
    if why:
        raise DataError(what, got=why, do=do)
    try:
        return Path(snapshot_download(repo, allow_patterns=patterns))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise DataError(what, got=f"{type(error).__name__} for {repo}", do=do) from error


def _index(name: str, folder: Path) -> dict[str, Any]:
    file = folder / INDEX_FILE
    try:
        index = json.loads(file.read_text("utf-8"))
        if not isinstance(index, dict):
            raise ValueError("it holds no mapping")
    except FileNotFoundError as error:
        raise DataError(
            f"the folder of the model {name!r} is incomplete: it lacks {INDEX_FILE}",
            got=str(folder),
            do="name the folder that diffusers' save_pretrained wrote",
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{INDEX_FILE} cannot be understood: {error}", got=str(file)) from error
    return index


def _missing(folder: Path, part: str) -> Iterator[str]:
    place = folder / part
    if not is_folder(place):
        yield f"{part}/"
        return
    names = {file.name for file in place.iterdir()}
    kind = part.rstrip("_0123456789")
    if kind in NEEDED:
        if not names & set(NEEDED[kind]):
            yield f"{part}/{NEEDED[kind][0]}"
        return
    if "config.json" not in names:
        yield f"{part}/config.json"
    index = next(
        (place / n for n in names if n.endswith(f"{SAFE}.index.json") and n.count(".") == 3), None
    )
    if index is not None:
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        yield from (f"{part}/{name}" for name in sorted(shards - names))
    elif not any(_are_weights(place / name) for name in names):
        pickled = any(name.endswith((".bin", ".ckpt", ".pt")) for name in names)
        yield f"{part}/*{SAFE}" + (" (pickled weights are not read)" if pickled else "")


def _are_weights(file: Path) -> bool:
    """Safetensors, and not a variant such as `.fp16.safetensors`."""
    return file.suffix == SAFE and "." not in file.stem
