"""Files of the Hugging Face hub: found in its cache, fetched if the hub answers.

Guarantees no long wait without a network: whether the hub answers is asked once, shortly,
because its own client tries for half a minute before it gives up.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from raycl.errors import DataError

ANSWER_SECONDS = 5.0


def cached(repo: str, file: str) -> Path | None:
    """The file in the local cache, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file)
    return Path(found) if isinstance(found, str) else None


def fetched(repo: str, files: Sequence[str], *, what: str, do: str) -> Path:
    """The first of these files that the hub has, or a DataError of these words."""
    why = refusal()
    if why:
        raise DataError(what, got=why, do=do)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    reason = "no file"
    for file in files:
        try:
            return Path(hf_hub_download(repo, file))
        except EntryNotFoundError as error:
            reason = f"{repo} has no {file}, or it cannot be reached: {type(error).__name__}"
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise DataError(what, got=f"{type(error).__name__} for {repo}", do=do) from error
    raise DataError(what, got=reason, do=do)


def refusal() -> str:
    """Why the hub cannot be asked; empty if it can."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE") == "1":
        return "HF_HUB_OFFLINE is set"
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()  # it answers
    except (OSError, ValueError) as error:
        return f"{constants.ENDPOINT} does not answer: {getattr(error, 'reason', error)}"
    return ""
