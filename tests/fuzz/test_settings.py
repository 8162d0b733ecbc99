"""What stands after `--set`, and after the other options that take a value."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.asking import desk, examples
from tests.fuzz.hostile import names, values

PATHS = (
    "method", "method.kind", "method.shrinkage", "method.align.lr", "method.options.a", "stream",
    "stream.tasks", "stream.paths", "stream.columns.label", "stream.increments", "seed",
    "init_seed", "validation.fraction", "backbone.name", "probe", "execution.store",
    "execution.workers", "execution.learner.cpus", "execution.log_to", "stream.order_seed",
    "stream.shots", "", ".", "a", "method.", ".kind", "method..kind",
)  # fmt: skip
CODE = ("[", "{", "a: b: c", "&a [*a]", "*a", "!!x", "9" * 6000, "- " * 2000)


def written(value: Any) -> str:
    return json.dumps(value, default=str, skipkeys=True)


said = st.one_of(names, values.map(written), st.sampled_from(CODE))
paths = st.one_of(st.sampled_from(PATHS), names)
texts = st.one_of(names, st.builds("{}={}".format, paths, said)).filter(lambda s: "\0" not in s)
METHODS = ("ncm", "cgil", "slda", "./no.py")
OTHERS = (
    ("fit", "--embeddings", "no.npz"),
    ("fit", "--embeddings", "no.npz", "--generator", "gmm:2"),
    ("synth", "--prompts", "no.txt", "--out", "o"),
    ("caption", "--stream", "folder:no"),
    ("embed", "folder:no"),
)


@examples(150)
@given(
    texts=st.lists(texts, min_size=1, max_size=3),
    method=st.sampled_from(METHODS),
)
def test_settings_of_a_run(texts: list[str], method: str) -> None:
    with desk() as here:
        settings = [arg for text in texts for arg in ("--set", text)]
        assert here.ask("run", method, "--stream", "embeddings:no.npz", *settings).code == 2


@examples(60)
@given(texts=st.lists(texts, min_size=1, max_size=2), command=st.sampled_from(OTHERS))
def test_settings_of_others(texts: list[str], command: tuple[str, ...]) -> None:
    with desk() as here:
        settings = [arg for text in texts for arg in ("--set", text)]
        assert here.ask(*command, *settings).code == 2


RUN = ("run", "ncm", "--stream", "embeddings:no.npz")
OPTIONS = (
    ("run", "?", "--stream", "embeddings:no.npz"), (*RUN, "--probe", "?"), (*RUN, "--seed", "?"),
    (*RUN, "--store", "?/x"), (*RUN, "--config", "?"), ("run", "ncm", "--stream", "?"),
    ("run", "ncm", "--stream", "embeddings:?"), ("run", "ncm", "--stream", "folder:?"),
    ("run", "ncm", "--stream", "hf:?"), ("run", "ncm", "--stream", "folder:no", "--backbone", "?"),
    ("fit", "--embeddings", "no.npz", "--generator", "?"), ("fit", "--embeddings", "?"),
    ("caption", "--stream", "folder:no", "--captioner", "?"), ("caption", "--images", "?"),
    ("embed", "?"), ("synth", "--prompts", "no.txt", "--out", "o", "--model", "?"),
    ("synth", "--prompts", "?", "--out", "o"), ("spaces", "check", "?"), ("spaces", "show", "?"),
    ("sweep", "?"), ("submit", "--cluster", "?", "--dry-run", "--", "run", "ncm"), ("run", "--?"),
    ("methods", "--check", "?"), ("report", "?"), ("report", "--store", "?"), ("compare", "?", "?"),
    ("diagnose", "?"), ("store", "show", "?"), ("store", "ls", "?"), ("data", "verify", "?"),
    ("store", "gc", "--older-than", "?"), ("data", "prepare", "?"), ("import", "?"), ("?",),
)  # fmt: skip


# Of a folder that is asked for every file is read, so not those above ours.
below = names.filter(lambda name: "\0" not in name and name.strip(" ./~"))


@examples(120)
@given(form=st.sampled_from(OPTIONS), name=below)
def test_other_options(form: tuple[str, ...], name: str) -> None:
    with desk() as here:
        here.ask(*(part.replace("?", name) for part in form))
