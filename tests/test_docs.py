"""Every code block of README and docs runs as it is written, or parses where it is a sketch."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")


def blocks(page: str, language: str) -> list[str]:
    found = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_project_lead_somewhere(page: str) -> None:
    for target in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run_or_are_sketches_that_parse(page: str, tmp_path: Path) -> None:
    for text in blocks(page, "python"):
        ast.parse(text)
        if not text.startswith(("def ", "class ")):
            command = [sys.executable, "-c", text]
            subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)


def commands(page: str) -> list[str]:
    lines = [
        line.split("#")[0].strip() for text in blocks(page, "bash") for line in text.splitlines()
    ]
    return [line for line in lines if line.startswith("raycl ")]


def test_the_commands_of_the_pages_are_all_understood(tmp_path: Path) -> None:
    """Each `raycl` line parses to a command with options that exist."""
    from raycl.cli.main import cli

    seen = 0
    for page in PAGES:
        for line in commands(page):
            for name, value in (
                ("$method", "ncm"),
                ("$seed", "0"),
                ("METHOD", "ncm"),
                ("SEED", "0"),
            ):
                line = line.replace(name, value)
            words = line.split()[1:]
            context = cli.make_context("raycl", words[:1], resilient_parsing=True)
            command = cli.get_command(context, words[0])
            assert command is not None, line
            command.make_context(words[0], words[1:])
            seen += 1
    assert seen >= 10


def test_the_readmes_story_runs(tmp_path: Path) -> None:
    """One's own embeddings, from the file to the table and the comparison."""
    environment = {**os.environ, "RAYCL_STORE": str(tmp_path / "store")}

    def raycl(*args: str) -> str:
        command = [sys.executable, "-m", "raycl", *args]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=120
        )
        return done.stdout.decode()

    exec(
        compile(
            blocks("README.md", "python")[0].replace(
                '"mine.npz"', repr(str(tmp_path / "mine.npz"))
            ),
            "README",
            "exec",
        ),
        {},
    )
    for method in ("ncm", "slda"):
        raycl("run", method, "--stream", "embeddings:mine.npz", "--set", "stream.tasks=5")
    assert "slda" in raycl("report")
    raycl("report", "--out", "table.md")
    assert "| slda" in (tmp_path / "table.md").read_text()


def test_the_example_method_is_short() -> None:
    example = (ROOT / "docs" / "examples" / "prototypes.py").read_text()
    assert len(example.splitlines()) < 80
