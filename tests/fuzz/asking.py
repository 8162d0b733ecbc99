"""Asks raycl something in a folder of its own, and holds the answer to what every answer owes.

An answer is right if it ends with a code of raycl's, shows no traceback and no control
character, and, where it refuses, says so in a sentence of some readable length. How many
questions are asked: see `tests/fuzz/__init__.py`.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from hypothesis import HealthCheck, settings

from raycl.cli.main import code_of
from raycl.errors import RayclError

FACTOR = int(os.environ.get("RAYCL_FUZZ", "1"))
LONGEST = 2000
"""Characters of a complaint; beyond, nobody finds the sentence in it."""

JOINERS = ("\u200c", "\u200d")
"""Which make emoji and some words, and do nothing by themselves."""

Test = TypeVar("Test", bound=Callable[..., Any])


def examples(count: int) -> Callable[[Test], Test]:
    """So many examples, the same ones each time; in an ordeal more, and new ones."""
    return settings(
        max_examples=count * FACTOR,
        derandomize=FACTOR == 1,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class Desk:
    """A folder with a store in it, and the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, data: bytes | str) -> Path:
        """A file of this folder."""
        path = self.folder / name
        # Text as a user's editor may leave it, whole or not.
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
        return path

    def ask(self, *args: str) -> Answer:
        """The answer of the command line, which is checked first."""
        answer = _answer(args)
        check_answer(answer)
        return answer


@contextlib.contextmanager
def desk() -> Iterator[Desk]:
    """An empty folder, which is the current one and holds the store."""
    before = Path.cwd()
    with (
        tempfile.TemporaryDirectory(prefix="raycl-fuzz-") as name,
        mock.patch.dict(os.environ, {"RAYCL_STORE": str(Path(name) / "store")}),
    ):
        os.chdir(name)
        try:
            yield Desk(Path(name))
        finally:
            os.chdir(before)


def _answer(args: tuple[str, ...]) -> Answer:
    """As a shell would get it: stdout refuses what is no UTF-8, stderr writes it otherwise."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = code_of(args)
    return Answer(code, _text(out), _text(err))


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


def check_answer(answer: Answer) -> None:
    """Holds for every command, whatever it was given."""
    assert answer.code in (0, 1, 2), answer
    assert_plain(answer.out)
    assert_plain(answer.err)
    # `raycl store verify` lists on stdout what it was asked for.
    if answer.code and "damaged" not in answer.err:
        complaint = answer.err.rpartition("\nraycl: ")[2]
        assert "raycl: " in answer.err or "Error: " in answer.err, answer
        assert_helpful(complaint)


def assert_helpful(complaint: str) -> None:
    """Words for whoever wrote the input, not for whoever wrote raycl."""
    assert complaint.strip(), "a refusal without a word"
    assert len(complaint) <= LONGEST, f"{len(complaint)} characters: {complaint[:300]}"
    for inside in ("Traceback", "object at 0x", "pydantic", "numpy.", "<class "):
        assert inside not in complaint, complaint


def assert_plain(text: str) -> None:
    """No control character, nothing that turns the direction of what follows, no half a letter."""
    kinds = {c: unicodedata.category(c) for c in set(text) - {"\n", *JOINERS}}
    bad = [c for c, kind in kinds.items() if kind in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert not bad, f"{bad[:5]} in {text[:300]!r}"


@contextlib.contextmanager
def refused_in_words() -> Iterator[None]:
    """Inside, a RayclError is an answer, once it helps; anything else is a bug."""
    try:
        yield
    except RayclError as error:
        assert_helpful(str(error))
