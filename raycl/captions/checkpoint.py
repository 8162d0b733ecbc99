"""The folder of a captioning model, and what it is, as digests. Needs no torch.

A name with a folder behind it is that folder; any other is a model on the Hugging Face hub, in
its cache or fetched. Every file that is read enters the digests, so a copied folder hits.
"""

from __future__ import annotations

from pathlib import Path

from raycl.backbones.hub import cached, fetched
from raycl.config.places import expanded, is_file, is_folder
from raycl.errors import ConfigError, DataError
from raycl.store.file_digest import file_digest

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENISER = ("tokenizer.json", "vocab.txt")
OTHERS = (
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
)


def checkpoint_folder(name: str) -> Path:
    """Where the model's files lie; a DataError that says what is missing."""
    place = expanded(name)
    if is_folder(place):
        return _whole(place)
    if name.count("/") != 1 or name.startswith((".", "/", "~", "$")):
        raise DataError("no such folder of a captioning model", got=str(place), do="check the path")
    return _of_hub(name)


def checkpoint_digests(name: str) -> tuple[str, ...]:
    """Of every file that building the model reads."""
    folder = checkpoint_folder(name)
    present = [CONFIG, *WEIGHTS, *TOKENISER, *OTHERS]
    weights = next(file for file in WEIGHTS if is_file(folder / file))
    chosen = [f for f in present if (f not in WEIGHTS or f == weights) and is_file(folder / f)]
    return tuple(file_digest(folder / file) for file in chosen)


def _whole(folder: Path) -> Path:
    for wanted in ((CONFIG,), WEIGHTS, TOKENISER):
        if not any(is_file(folder / file) for file in wanted):
            raise DataError(
                f"the folder of a captioning model lacks {' or '.join(wanted)}",
                got=str(folder),
                do="save model and processor there: both have save_pretrained",
            )
    return folder


def _of_hub(repo: str) -> Path:
    def one(files: tuple[str, ...]) -> Path:
        there = next((path for f in files if (path := cached(repo, f))), None)
        return there or fetched(
            repo,
            list(files),
            what=f"the captioning model {repo} is not on this machine",
            do=f"fetch it where there is a network (hf download {repo}) and copy the Hugging Face "
            "cache here, or name a folder that holds it, or use the captioner `attributes`",
        )

    folder = one((CONFIG,)).parent
    found = [one(WEIGHTS), one(TOKENISER), one(OTHERS[:2])]
    for file in OTHERS:
        if cached(repo, file) is None:
            try:
                fetched(repo, [file], what="", do="")
            except DataError:
                continue  # not every checkpoint has all of them
    if any(path.parent != folder for path in found):
        raise ConfigError(
            f"the Hugging Face cache holds parts of several versions of {repo}",
            do=f"fetch it again: hf download {repo}",
        )
    return folder
