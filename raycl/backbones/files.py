"""The files that a backbone is made of, found by its name. Needs no torch.

    tiny-clip           the folder that raycl brings along
    ARCH:TAG            an architecture of open_clip with one of its pretrained tags
    ARCH:random         the same with random weights of a fixed seed, for checks
    ARCH:PATH           the same with the weights in a file
    hf-hub:ORG/REPO     a model of open_clip on the Hugging Face hub
    local-dir:FOLDER    open_clip_config.json, weights and perhaps bpe.txt.gz in a folder

Guarantees that every file named exists, and that what open_clip's factory would read and
what the key was made of are the same files. Weights that are not here are fetched from the
hub if it answers; if it does not, the error says which file to place where. Only a known tag
needs open_clip itself, and with it torch: its table of tags lies in there.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raycl.backbones.hub import cached, fetched
from raycl.backbones.sentence_tokeniser import CLEANING
from raycl.backbones.sentence_tokeniser import FILES as TOKENISER_FILES
from raycl.config.backbones import GIVEN, TINY_CLIP, Backbone
from raycl.config.places import expanded, is_file, is_folder
from raycl.errors import ConfigError, DataError

HUB, LOCAL_DIR, RANDOM = "hf-hub:", "local-dir:", "random"
CONFIG_NAME = "open_clip_config.json"
BPE_NAME = "bpe.txt.gz"
SAFE_NAME, PICKLED_NAME = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
PREFERRED = (SAFE_NAME, "open_clip_pytorch_model.safetensors", PICKLED_NAME)
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode", "fill_color", "size", "mode")


@dataclass(frozen=True)
class BackboneFiles:
    """All that must be known to build a backbone."""

    factory: str
    """The name under which open_clip's factory finds the configuration."""
    model: dict[str, Any]
    """The configuration of both towers."""
    weights: Path | None
    """None: random weights."""
    tokeniser: tuple[Path, ...]
    """The merges of CLIP's own, or the files of another, which lie in one folder."""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    """What differs from open_clip's own defaults."""


def backbone_files(backbone: Backbone) -> BackboneFiles:
    """Where a backbone's configuration, weights and tokeniser lie."""
    name = backbone.name
    if name == GIVEN or not name:
        raise ConfigError(
            "given vectors have no encoder behind them",
            got=f"backbone.name={name}",
            do=f"name a backbone, such as {TINY_CLIP}",
        )
    if name == TINY_CLIP:
        return _folder(name, Path(__file__).parent / "tiny" / "weights")
    if name.startswith(LOCAL_DIR):
        return _folder(name, expanded(name.removeprefix(LOCAL_DIR)))
    if name.startswith(HUB):
        return _hub(name, name.removeprefix(HUB))
    architecture, colon, tag = name.partition(":")
    model = _architecture(architecture)
    if not colon or not tag:
        raise _no_such_tag(architecture, tag)
    if tag == RANDOM:
        return BackboneFiles(architecture, model, None, _tokeniser(name, model))
    if "/" in tag or tag.endswith(WEIGHT_SUFFIXES):
        weights = _checked_weights(expanded(tag))
        return BackboneFiles(architecture, model, weights, _tokeniser(name, model))
    return _tagged(architecture, tag, model)


_OPEN_CLIPS_BPE = "bpe_simple_vocab_16e6.txt.gz"


def _tokeniser(name: str, model: dict[str, Any], folder: Path | None = None) -> tuple[Path, ...]:
    """The tokeniser's files: beside the weights, open_clip's own, or those of the hub."""
    repo = model["text_cfg"].get("hf_tokenizer_name")
    if not repo:
        beside = folder / BPE_NAME if folder else None
        return (beside if beside and is_file(beside) else _open_clip() / _OPEN_CLIPS_BPE,)
    places = [folder] if folder else []
    if os.environ.get("RAYCL_DATA"):
        places.append(expanded(f"$RAYCL_DATA/backbones/{repo.replace('/', '--')}"))
    for place in places:
        if all(is_file(place / file) for file in TOKENISER_FILES):
            return tuple(place / file for file in TOKENISER_FILES)
    return tuple(
        cached(repo, file)
        or fetched(
            repo,
            [file],
            what=f"the tokeniser of {name} is not on this machine",
            do=f"place {' and '.join(TOKENISER_FILES)} in $RAYCL_DATA/backbones/"
            f"{repo.replace('/', '--')}/, or beside the weights of a {LOCAL_DIR}FOLDER; "
            f"where there is a network: hf download {repo} {' '.join(TOKENISER_FILES)}",
        )
        for file in TOKENISER_FILES
    )


def _open_clip() -> Path:
    """Where open_clip is installed, without importing it."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise DataError("open_clip is not installed", do="pip install open_clip_torch")
    return Path(spec.origin).parent


def _architecture(name: str) -> dict[str, Any]:
    folder = _open_clip() / "model_configs"
    known = [p.stem for p in folder.glob("*.json")]
    if name not in known:
        raise _no_such_backbone(name, known)
    return _supported(name, json.loads((folder / f"{name}.json").read_text("utf-8")))


def _no_such_backbone(name: str, architectures: list[str]) -> ConfigError:
    names = {known.lower(): known for known in (*architectures, TINY_CLIP, GIVEN)}
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    return ConfigError(
        "no such backbone",
        got=name,
        do=(f"did you mean {' or '.join(names[c] for c in close)}? " if close else "")
        + f"Names are {TINY_CLIP}, ARCHITECTURE:TAG (as ViT-B-32:openai), ARCHITECTURE:FILE, "
        f"{HUB}ORG/REPO and {LOCAL_DIR}FOLDER",
    )


def _no_such_tag(architecture: str, tag: str) -> ConfigError:
    from open_clip.pretrained import list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(architecture)
    close = difflib.get_close_matches(_plain(tag), tags, n=3, cutoff=0.5)
    first = f"did you mean {' or '.join(f'{architecture}:{c}' for c in close)}? "
    return ConfigError(
        f"{architecture} has no such pretrained weights" if tag else f"{architecture} needs a tag",
        got=f"{architecture}:{tag}" if tag else architecture,
        do=(first if close else "")
        + f"Its tags are {', '.join(tags) or 'none'}; :{RANDOM} and :FILE are others",
    )


def _plain(tag: str) -> str:
    return tag.lower().replace("-", "_")


def _tagged(architecture: str, tag: str, model: dict[str, Any]) -> BackboneFiles:
    # Of all names only these need open_clip, and so torch, to make a key.
    from open_clip.pretrained import get_pretrained_cfg

    known: dict[str, Any] = get_pretrained_cfg(architecture, tag)
    if not known:
        raise _no_such_tag(architecture, tag)
    # OpenAI's weights want the activation they were trained with, whatever the name says.
    model["quick_gelu"] = bool(known.get("quick_gelu"))
    placed = f"{architecture}-{_plain(tag)}{Path(SAFE_NAME).suffix}"
    own = expanded(f"$RAYCL_DATA/backbones/{placed}") if os.environ.get("RAYCL_DATA") else None
    if own is None or not is_file(own):
        repo, _, file = known["hf_hub"].rpartition("/")
        own = _weights_of_repo(repo, file, f"{architecture}:{tag}", placed)
    preprocessing = {name: known[name] for name in PREPROCESSING if name in known}
    tokeniser = _tokeniser(f"{architecture}:{tag}", model)
    return BackboneFiles(architecture, model, _checked_weights(own), tokeniser, preprocessing)


def _weights_of_repo(repo: str, file: str, name: str, placed: str | None = None) -> Path:
    """The weights in the Hugging Face cache, fetched if they are not there."""
    wanted = file or PICKLED_NAME
    safe = SAFE_NAME if wanted == PICKLED_NAME else f"{Path(wanted).stem}.safetensors"
    names = list(dict.fromkeys((safe, wanted)))
    found = next((path for n in names if (path := cached(repo, n))), None)
    own = f"place them at $RAYCL_DATA/backbones/{placed}, or " if placed else ""
    return found or fetched(
        repo,
        names,
        what=f"the weights of {name} are not on this machine",
        do=f"{own}fetch them where there is a network (hf download {repo} {names[0]}) and copy "
        f"the Hugging Face cache here, or name a folder ({LOCAL_DIR}FOLDER) that holds "
        f"{CONFIG_NAME} and the weights, or use {TINY_CLIP}, which needs no file",
    )


def _hub(name: str, repo: str) -> BackboneFiles:
    if repo.count("/") != 1 or repo.startswith("/") or repo.endswith("/"):
        raise ConfigError("a model on the hub is hf-hub:ORG/REPO", got=name)
    config = cached(repo, CONFIG_NAME) or fetched(
        repo,
        [CONFIG_NAME],
        what=f"the configuration of {name} is not on this machine",
        do=f"fetch it where there is a network (hf download {repo} {CONFIG_NAME} {SAFE_NAME}) "
        f"and copy the Hugging Face cache here, or use {LOCAL_DIR}FOLDER or {TINY_CLIP}",
    )
    model, preprocessing = _read_config(name, config)
    weights = _checked_weights(_weights_of_repo(repo, "", name))
    factory, tokeniser = f"{LOCAL_DIR}{config.parent}", _tokeniser(name, model)
    return BackboneFiles(factory, model, weights, tokeniser, preprocessing)


def _folder(name: str, folder: Path) -> BackboneFiles:
    if not is_folder(folder):
        siblings = [p.name for p in folder.parent.iterdir()] if is_folder(folder.parent) else []
        close = difflib.get_close_matches(folder.name, siblings, n=2, cutoff=0.5)
        do = f"did you mean {' or '.join(close)}?" if close else "check the path"
        raise DataError("no such folder of a backbone", got=str(folder), do=do)
    model, preprocessing = _read_config(name, folder / CONFIG_NAME)
    return BackboneFiles(
        factory=f"{LOCAL_DIR}{folder}",
        model=model,
        weights=_checked_weights(_weights_in(folder)),
        tokeniser=_tokeniser(name, model, folder),
        preprocessing=preprocessing,
    )


def _read_config(name: str, file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        config = json.loads(file.read_text("utf-8"))
        model, preprocessing = config["model_cfg"], config.get("preprocess_cfg") or {}
        if not isinstance(model, dict) or not isinstance(preprocessing, dict):
            raise TypeError("model_cfg and preprocess_cfg must be mappings")
    except FileNotFoundError as error:
        raise DataError(
            f"the folder of a backbone holds no {CONFIG_NAME}",
            got=str(file.parent),
            do="save one there: open_clip's push_to_hub and its model cards write them",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{CONFIG_NAME} cannot be understood: {type(error).__name__} {error}",
            got=str(file),
            do="it must be JSON with model_cfg and preprocess_cfg, as open_clip writes it",
        ) from error
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - model.keys()
    if missing:
        raise DataError(f"model_cfg lacks {', '.join(sorted(missing))}", got=str(file))
    return _supported(name, model), preprocessing


def _supported(name: str, model: dict[str, Any]) -> dict[str, Any]:
    """The configuration, if its towers are of a kind that can be opened up."""
    text = model["text_cfg"]
    options = text.get("tokenizer_kwargs") or {}
    reason = ""
    if "multimodal_cfg" in model or text.get("embed_cls"):
        reason = "it is a captioning model (CoCa), whose text tower appends a token of its own"
    elif text.get("hf_model_name"):
        reason = f"its text tower is {text['hf_model_name']} of the transformers package"
    elif text.get("hf_tokenizer_name") and options.keys() - {CLEANING}:
        reason = f"its tokeniser is used in a way of its own ({', '.join(sorted(options))})"
    elif options.get("reduction_mask"):
        reason = "its tokeniser drops words at random"
    if reason:
        raise ConfigError(
            f"{name} cannot be a backbone here: {reason}",
            do="use a model with CLIP's own tokeniser, as ViT-B-32:openai; or embed elsewhere "
            "and read the vectors with the stream embeddings:FILE",
        )
    return model


def _weights_in(folder: Path) -> Path:
    found = sorted(p for p in folder.iterdir() if p.suffix in WEIGHT_SUFFIXES)
    chosen = [folder / n for n in PREFERRED if folder / n in found]
    safe = [p for p in found if p.suffix == ".safetensors"]
    for candidates in (chosen[:1], safe, found):
        if len(candidates) == 1:
            return candidates[0]
    names = ", ".join(p.name for p in found) or "none"
    raise DataError(
        f"the folder {folder} must hold one file of weights",
        got=names,
        do=f"name the one that counts {SAFE_NAME}",
    )


def _checked_weights(file: Path) -> Path:
    if not is_file(file):
        raise DataError("no such file of weights", got=str(file), do="check the path")
    if file.suffix not in WEIGHT_SUFFIXES:
        raise DataError("weights come in .safetensors, .bin, .pt or .pth files", got=file.name)
    return file
