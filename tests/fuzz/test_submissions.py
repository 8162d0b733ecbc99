"""Commands that are to run on a cluster: whatever they hold arrives there as it was written."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from raycl.cli.submit import command_of
from raycl.launch.entrypoint import SCRIPT
from raycl.launch.profiles import read_profile
from raycl.launch.render import render
from tests.fuzz.asking import desk, examples
from tests.fuzz.hostile import names
from tests.fuzz.test_config_files import PROFILES

words = names.filter(lambda name: "\0" not in name)
COMMANDS = (
    ("run", "?", "--stream", "digits"), ("run", "ncm", "--stream", "?"),
    ("run", "ncm", "--stream", "embeddings:/d/?"), ("run", "ncm", "--stream", "folder:?"),
    ("run", "ncm", "--stream", "digits", "--set", "?"), ("run", "ncm", "--config", "?"),
    ("run", "ncm", "--stream", "digits", "--set", "method.options.a=?"),
    ("run", "ncm", "--stream", "digits", "--set", "execution=?"),
    ("run", "ncm", "--stream", "digits", "--set", "stream=?"),
    ("run", "ncm", "--set", "stream.paths=?"), ("run", "ncm", "--set", "backbone=?"),
    ("run", "ncm", "--stream", "digits", "--store", "?"), ("run", "ncm", "--store", "s3://?"),
    ("run", "ncm", "--stream", "digits", "--probe", "?"), ("run", "./?.py", "--stream", "digits"),
    ("fit", "--embeddings", "?", "--out", "?"), ("embed", "?"), ("sweep", "?"),
    ("sweep", "cgil", "--store", "?"), ("synth", "--prompts", "?", "--out", "/d/?"),
    ("caption", "--stream", "digits", "--captioner", "?"), ("caption", "--images", "?"),
    ("?",), ("raycl", "?"), ("run", "?", "?"), ("report", "?"), ("run", "--?"),
)  # fmt: skip


@examples(120)
@given(form=st.sampled_from(COMMANDS), word=words, profile=st.sampled_from(PROFILES))
def test_a_command(form: tuple[str, ...], word: str, profile: dict[str, object]) -> None:
    with desk() as here:
        here.write("c.json", json.dumps(profile))
        command = tuple(part.replace("?", word) for part in form)
        answer = here.ask("submit", "--cluster", "./c.json", "--dry-run", "--", *command)
        assert answer.code in (0, 2)
        if answer.code == 0:
            check_arrival(command, here.folder / "c.json")


def check_arrival(command: tuple[str, ...], profile: Path) -> None:
    """What a shell would make of the script is what was written."""
    read = read_profile(str(profile))
    plan = render(command_of(command, read), read)
    script = plan.files.get(SCRIPT)
    if script is not None and {"--set", "--store"} & set(command):
        assert command[-1] in shlex.split(script.rpartition("\nexec ")[2])


@examples(60)
@given(word=words, profile=st.sampled_from(PROFILES))
def test_words_of_a_profile(word: str, profile: dict[str, object]) -> None:
    """In every text of a profile a word that a shell, YAML or Slurm would take otherwise."""
    for name, value in profile.items():
        if name == "kind" or not isinstance(value, str | dict | list):
            continue
        changed = {**profile, name: word}
        with desk() as here:
            here.write("c.json", json.dumps(changed))
            command = ("--dry-run", "--", "run", "ncm", "--stream", "digits")
            answer = here.ask("submit", "--cluster", "./c.json", *command)
            assert answer.code in (0, 2)
