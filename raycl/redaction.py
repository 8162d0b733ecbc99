"""Secrets kept out of what is printed and logged.

Guarantees: the value of a variable that is named like a secret, or listed in RAYCL_SECRETS,
is replaced by the variable's name in every text that passes here; so is what has the form of
a well-known kind of secret. Values of fewer than eight characters, and short plain words, are
left alone unless they are listed: `false` and `disabled` are no secrets.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TextIO

LISTED = "RAYCL_SECRETS"
"""Names of further variables that hold secrets, with commas between them."""
_SHORTEST, _SHORTEST_LISTED, _SHORTEST_WORD = 8, 4, 12

_NAME = re.compile(r"(?i)(token|secret|passw(or)?d|credential|private_?key|api_?key|access_?key)")
# Where a name is safe although it looks like one: it holds a path, not a secret.
_HOLDS_A_PATH = re.compile(r"(?i)(_path|_file|_dir)$")
_VALUE = re.compile(
    r"hf_\w{20,}|gh[pousr]_\w{20,}|AKIA[0-9A-Z]{16}|sk-[\w-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY"
)
_PASSWORD_IN_ADDRESS = re.compile(r"(\w+://[^/@\s:]*):[^/@\s]*@")


def is_secret_name(name: str) -> bool:
    """Whether a variable is named as those are that hold a secret."""
    named_so = bool(_NAME.search(name)) and name != LISTED
    return named_so and not _HOLDS_A_PATH.search(name)


def looks_secret(value: str) -> bool:
    """Whether a text has the form of a known kind of secret."""
    return bool(_VALUE.search(value)) or has_password(value)


def has_password(address: str) -> bool:
    """Whether an address holds a password."""
    return bool(_PASSWORD_IN_ADDRESS.search(address))


def secrets_here(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What must not be shown, and the name to show in its place; longer texts first."""
    listed = {name.strip() for name in environ.get(LISTED, "").split(",")}
    found: dict[str, str] = {}
    for name, value in environ.items():
        shortest = _SHORTEST_LISTED if name in listed else _SHORTEST
        plain_word = value.isalpha() and len(value) < _SHORTEST_WORD and name not in listed
        if not (name in listed or is_secret_name(name)) or plain_word:
            continue
        # A log shows one line after the other, and JSON writes some characters otherwise.
        for text in {value, *value.splitlines()}:
            for spelt in {text.strip(), json.dumps(text.strip())[1:-1]}:
                if len(spelt) >= shortest:
                    found[spelt] = name
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def redacted(text: str, secrets: Mapping[str, str] | None = None) -> str:
    """The text without secrets: those of this process's environment unless others are given."""
    for value, name in (secrets_here() if secrets is None else secrets).items():
        text = text.replace(value, f"[{name}]")
    text = _VALUE.sub("[secret]", text)
    return _PASSWORD_IN_ADDRESS.sub(r"\1:[password]@", text)


def redacted_lines(pieces: Iterable[str]) -> Iterator[str]:
    """A text that comes in pieces, line by line, since a piece may end within a secret."""
    secrets, rest = secrets_here(), ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        for line in whole:
            yield redacted(f"{line}\n", secrets)
    if rest:
        yield redacted(rest, secrets)


class Redacting:
    """A text stream that leaves secrets out of what is written to it."""

    def __init__(self, stream: TextIO, secrets: Mapping[str, str]) -> None:
        self._stream, self._secrets = stream, secrets

    def write(self, text: str) -> int:
        self._stream.write(redacted(text, self._secrets))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
