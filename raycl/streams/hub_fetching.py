"""Fetches a data set of the Hugging Face hub: its Parquet files, into the root of data sets.

Guarantees no long wait without a network, nothing fetched but Parquet files and cards, and
that an interrupted download goes on: the hub's own client keeps what it has. No code of a
repository is ever run.
"""

from __future__ import annotations

from pathlib import Path

from raycl.errors import DataError
from raycl.streams.hub_sets import FOLDER

PATTERNS = ["*.parquet", "README.md"]
REVISIONS = ("main", "refs/convert/parquet")
"""The repository itself, else the hub's own conversion of it."""


def about_repo(repo: str) -> str:
    """Its licence and size, in words."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(repo, files_metadata=True, timeout=10)
    except Exception as error:
        raise _unreachable(repo, error) from error
    card = info.card_data
    licence = (card.get("license") if card is not None else None) or "not stated"
    sizes = [s.size or 0 for s in info.siblings or [] if s.rfilename.endswith(".parquet")]
    size = f"{sum(sizes) / 2**20:,.0f} MiB of Parquet" if sizes else "converted by the hub"
    return f"{repo}: licence {licence}; {size}"


def fetch_repo(repo: str, base: Path) -> Path:
    """The folder that the data set's files now lie in."""
    from huggingface_hub import snapshot_download

    place = base / FOLDER / repo
    for revision in REVISIONS:
        try:
            snapshot_download(
                repo,
                repo_type="dataset",
                revision=revision,
                allow_patterns=PATTERNS,
                local_dir=place,
            )
        except Exception as error:
            raise _unreachable(repo, error) from error
        if any(place.rglob("*.parquet")):
            return place
    raise DataError(f"{repo} has no Parquet files", got=str(place), do="convert it elsewhere")


def _unreachable(repo: str, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return DataError(
        f"the hub cannot be asked for {repo}: {reason}",
        do=f"where there is a network: hf download {repo} --repo-type dataset --local-dir "
        f"FOLDER; then place FOLDER at $RAYCL_DATA/{FOLDER}/{repo}",
    )
