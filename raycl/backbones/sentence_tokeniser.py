"""Tokenisers that are not CLIP's own: those of SigLIP, as Hugging Face's library reads them.

Guarantees the ids that open_clip gives its models, padded to the whole context as they are
padded in training; that no code of a repository is run and nothing is fetched; and that no
text is cut silently, which open_clip does. There is no token before the text, so soft tokens,
which stand after that token, have no place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raycl.errors import DataError

FILES = ("tokenizer.json", "tokenizer_config.json")
CLEANING = "clean"
"""The one option of open_clip's that is known here."""


class SentenceTokeniser:
    """The interface of CLIP's tokeniser as far as a text tower needs it."""

    sot_token_id: int | None = None

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        from open_clip.tokenizer import HFTokenizer

        try:
            whole = HFTokenizer(
                str(folder),
                clean=options.get(CLEANING, "whitespace"),
                local_files_only=True,
                trust_remote_code=False,
            )
        except Exception as error:  # whatever a broken file makes the reader say
            raise DataError(
                f"the tokeniser cannot be read: {type(error).__name__}: {error}",
                got=str(folder),
                do=f"see that {' and '.join(FILES)} are whole",
            ) from error
        self._clean, self._tokenizer = whole.clean_fn, whole.tokenizer
        ids = self._tokenizer.eos_token_id, self._tokenizer.pad_token_id
        if None in ids:
            raise DataError("the tokeniser names no end or no padding", got=str(folder))
        self.eot_token_id, self.pad_token_id = (int(one) for one in ids)
        self.vocab_size = len(self._tokenizer)

    def framed(self, text: str) -> list[int]:
        """The ids of a text with all that marks its end."""
        return [int(one) for one in self._tokenizer(self._clean(text)).input_ids]
