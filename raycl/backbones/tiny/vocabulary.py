"""The byte-pair vocabulary of tiny-CLIP, in the file form that open_clip's tokenizer reads.

Every byte is a token, alone and at the end of a word, so any text can be written; merges
are learnt from captions; the two marks come last, the end-of-text id highest.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

MERGES = 488
"""Learnt tokens: with 512 for the bytes and 2 marks, about a thousand in all."""

HEADER = "#raycl tiny byte-pair merges"
Pair = tuple[str, str]


def learn_merges(texts: Iterable[str], merges: int = MERGES) -> list[Pair]:
    """The merges that shorten these texts most, greedily; ties go to the alphabet."""
    words = Counter(word for text in texts for word in _words(text))
    pieces = {word: (*word[:-1], word[-1] + "</w>") for word in words}
    learnt: list[Pair] = []
    while len(learnt) < merges:
        counts: Counter[Pair] = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                counts[pair] += words[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        learnt.append(best)
        pieces = {word: _merged(parts, best) for word, parts in pieces.items()}
    return learnt


def _words(text: str) -> list[str]:
    return [word for word in text.lower().replace(".", " ").split() if word]


def _merged(parts: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    out: list[str] = []
    position = 0
    while position < len(parts):
        if parts[position : position + 2] == pair:
            out.append("".join(pair))
            position += 2
        else:
            out.append(parts[position])
            position += 1
    return tuple(out)


def write_merges(path: Path, merges: list[Pair]) -> None:
    """The file, the same bytes each time: no date in it, and no empty last line, which
    the reader would take for a merge."""
    text = "\n".join([HEADER, *(" ".join(pair) for pair in merges)])
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def vocabulary_size(merges: int) -> int:
    """Tokens in all: bytes, bytes that end a word, merges, two marks."""
    return 2 * 256 + merges + 2
