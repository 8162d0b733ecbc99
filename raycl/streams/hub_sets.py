"""Where a data set of the Hugging Face hub lies on this machine. Fetches nothing.

Looked for are, in this order, a folder of that path, `hf/ORG/NAME` below the root of data
sets, where `raycl data prepare hf:ORG/NAME --download` puts it, and the hub's own cache.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from raycl.config.places import at_home, expanded, is_folder
from raycl.errors import ConfigError, DataError
from raycl.streams.folder_digest import folder_digest
from raycl.streams.shard_files import find_shards

FOLDER = "hf"
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def repo_of(text: str) -> str:
    """ORG/NAME, or a ConfigError."""
    if not _REPO.fullmatch(text) or ".." in text:
        raise ConfigError(
            "a data set on the hub is ORG/NAME",
            got=text,
            do="write hf:ORG/NAME, or hf:PATH for a folder that is there",
        )
    return text


def resolve_hub(text: str, root: str | None) -> Path:
    """The folder of a data set, as the user wrote it."""
    place = expanded(text)
    if is_folder(place):
        return place
    repo = repo_of(text)
    base = root if root is not None else os.environ.get("RAYCL_DATA")
    own = at_home(base) / FOLDER / repo if base else None
    if own is not None and is_folder(own):
        return own
    snapshot = _in_cache(repo)
    if snapshot is not None:
        return snapshot
    raise DataError(
        f"{repo} is not on this machine",
        got=f"neither a folder {text}, nor {own or f'$RAYCL_DATA/{FOLDER}/{repo}'}, nor in the "
        "hub's cache",
        do=f"fetch it where there is a network: raycl data prepare hf:{repo} --download "
        f"(or hf download {repo} --repo-type dataset), and place its Parquet files there",
    )


def _in_cache(repo: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for revision in ("main", "refs/convert/parquet"):
        try:
            found = snapshot_download(
                repo, repo_type="dataset", revision=revision, local_files_only=True
            )
        except (LocalEntryNotFoundError, OSError, ValueError):
            continue
        if _holds_shards(Path(found)):
            return Path(found)
    return None


def _holds_shards(folder: Path) -> bool:
    try:
        return bool(find_shards(folder))
    except DataError:
        return False


def hub_digest(folder: Path) -> str:
    """Of the files of a data set, and not of where they lie."""
    files = [shard.path.relative_to(folder).as_posix() for shard in find_shards(folder)]
    return folder_digest(folder, files)
