"""What is quick must stay quick: help, configs and keys import none of the heavy packages.

Each case runs in an interpreter of its own, which tells what it has imported at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "torch", "ray", "pyarrow", "sklearn", "pandas", "PIL", "open_clip", "matplotlib",
    "diffusers", "transformers",
}  # fmt: skip

IMPORT = "import raycl"

LOAD = """
from pathlib import Path
from raycl.config import loading
from raycl.config.experiment import Experiment

Path("mine.yaml").write_text("method: {kind: finetune}\\nstream: {kind: digits, tasks: 5}\\n")
tree = loading.read_file(Path("mine.yaml"))
config = loading.load([tree, loading.parse_setting("method.align.lr=1e-2"), {"seed": 3}])
experiment = config.experiment.resolved()
assert isinstance(experiment, Experiment)
assert (experiment.method.align.lr, experiment.init_seed) == (0.01, 3)
"""

KEY = (
    LOAD
    + """
from raycl.config.spec import digest, identity

assert digest(identity(experiment)) != digest(identity(experiment.resolved().method))
"""
)

CONTENT = """
from pathlib import Path
from raycl.config.streams import DigitsStream, EmbeddingsStream
from raycl.streams.content import content_digests

Path("set.npz").write_bytes(b"any bytes have a digest")
assert len(content_digests(EmbeddingsStream(paths=("set.npz",)))) == 1
assert len(content_digests(DigitsStream())) == 1
"""

RUN_KEY = """
from raycl.config.loading import load
from raycl.embedding.identity import EmbeddingIdentity
from raycl.engine.identity import RunIdentity
from raycl.engine.run import run

tree = {"method": "ncm", "stream": "digits", "backbone": {"name": "tiny-clip"}}
experiment = load([tree]).experiment
assert len(RunIdentity.of(experiment).weights) == 3
assert EmbeddingIdentity.of(experiment.stream, experiment.backbone).features.kind == "features"
"""

IMAGES_KEY = """
from pathlib import Path
from raycl.engine.synthesis import synthesis_of
from raycl.synthesis.identity import chunks_of
from raycl.synthesis.prompts import read_prompts

Path("p.csv").write_text("prompt,seed\\na seven,1\\n")
(chunk,) = chunks_of(read_prompts(Path("p.csv")).prompts, synthesis_of("tiny-sd", "turbo"))
assert chunk.artefact.key.startswith("images/a-seven/")
"""

HELP = """
import runpy

sys.argv = ["raycl", "--help"]
try:
    runpy.run_module("raycl", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
"""

TELL = """
import atexit, json, sys

atexit.register(lambda: print("\\n" + json.dumps(sorted({m.split(".")[0] for m in sys.modules}))))
"""


def imported_by(script: str, folder: Path) -> tuple[str, set[str]]:
    """What the script printed, and the top-level packages it had imported when it ended."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAYCL_", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-c", TELL + script],
        cwd=folder, env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed, _, told = done.stdout.rstrip().rpartition("\n")
    return printed, set(json.loads(told))


@pytest.mark.parametrize(
    "script",
    [IMPORT, LOAD, KEY, CONTENT, RUN_KEY, IMAGES_KEY, HELP],
    ids=["import", "load", "key", "content", "run key", "images' key", "help"],
)
def test_nothing_heavy_is_imported(script: str, tmp_path: Path) -> None:
    _, imported = imported_by(script, tmp_path)
    assert "raycl" in imported
    assert not imported & HEAVY


def test_help_names_the_program_and_its_commands(tmp_path: Path) -> None:
    printed, _ = imported_by(HELP, tmp_path)
    assert "usage" in printed.lower()
    assert "demo" in printed


def test_a_heavy_import_would_be_seen(tmp_path: Path) -> None:
    _, imported = imported_by("import pyarrow", tmp_path)
    assert imported & HEAVY == {"pyarrow"}
