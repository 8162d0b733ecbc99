"""Secrets are kept out of what is printed, and words that are none are not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from raycl.redaction import Redacting, redacted, redacted_lines, secrets_here

SECRET = 'pa"ss\\wörd-1'


def test_what_is_named_like_a_secret_or_listed_is_one() -> None:
    found = secrets_here(
        {
            "HF_TOKEN": "0123456789",
            "LICENCE": "abcd",
            "RAYCL_SECRETS": "LICENCE,OTHER",
            "TOKENIZERS_PARALLELISM": "false",
            "X_TOKEN_MODE": "disabled",
            "SHORT_TOKEN": "1234567",
            "RAY_AUTH_TOKEN_PATH": "/a/long/path",
            "PATH": "/usr/bin:/bin",
        }
    )
    assert found == {"0123456789": "HF_TOKEN", "abcd": "LICENCE"}


def test_values_go_in_every_spelling_and_longer_ones_first() -> None:
    secrets = secrets_here({"A_TOKEN": SECRET, "B_TOKEN": "first-line\nsecond-line"})
    assert redacted(f"x{SECRET}y", secrets) == "x[A_TOKEN]y"
    assert json.loads(redacted(json.dumps({"e": SECRET}), secrets)) == {"e": "[A_TOKEN]"}
    assert redacted("a second-line alone", secrets) == "a [B_TOKEN] alone"
    both = secrets_here({"A_TOKEN": "12345678", "B_TOKEN": "1234567890"})
    assert redacted("1234567890", both) == "[B_TOKEN]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hf_" + "a" * 30, "[secret]"),
        ("AKIA" + "A" * 16, "[secret]"),
        ("s3 at https://me:pw@host/x", "s3 at https://me:[password]@host/x"),
        ("16:30 http://host:8265/x", "16:30 http://host:8265/x"),
    ],
)
def test_known_forms_are_seen_without_a_variable(text: str, shown: str) -> None:
    assert redacted(text, {}) == shown


def test_a_secret_may_come_in_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "0123456789")
    pieces = ["a 01234", "56789 b\nc 0123", "456789"]
    assert list(redacted_lines(pieces)) == ["a [MY_TOKEN] b\n", "c [MY_TOKEN]"]


def test_a_stream_is_otherwise_the_stream_that_it_was() -> None:
    below = io.StringIO()
    stream = Redacting(below, {"0123456789": "T"})
    print("a 0123456789", file=stream, flush=True)  # type: ignore[call-overload]
    stream.writelines(["0123456789", "\n"])
    assert below.getvalue() == "a [T]\n[T]\n" and not stream.isatty()  # type: ignore[operator]


def test_no_command_prints_a_secret_not_even_with_a_traceback() -> None:
    code = "import os; raise KeyError(os.environ['MY_TOKEN'])"
    broken = f"import raycl.cli.main as m; m.code_of = lambda a: exec({code!r}); m.main()"
    for args in (["-m", "raycl", "run", "ncm", "--stream", "0123456789"], ["-c", broken]):
        done = subprocess.run(
            [sys.executable, *args],
            env={**os.environ, "MY_TOKEN": "0123456789"},
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode != 0 and "[MY_TOKEN]" in done.stderr, done.stderr
        assert "0123456789" not in done.stdout + done.stderr
