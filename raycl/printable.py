"""Text from elsewhere as a terminal may show it: names of classes, of files, in messages.

Guarantees: no control character, so none that moves the cursor or turns the writing around, and
no half of a character, which cannot be written at all; other text is left as it is.
"""

from __future__ import annotations

_JOINERS = "\u200c\u200d"
"""Part of words and of emoji; they do nothing by themselves."""


def plain(text: str) -> str:
    """On one line: white space as a space, what cannot be shown as a question mark."""
    return text if text.isprintable() else "".join(map(_plain, text))


def plain_lines(text: str) -> str:
    """The same, line by line."""
    return "\n".join(map(plain, text.split("\n")))


def _plain(c: str) -> str:
    if c.isprintable() or c in _JOINERS:
        return c
    return " " if c.isspace() else "?"
