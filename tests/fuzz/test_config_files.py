"""Config files of runs, fits, search spaces and clusters: whatever stands in them."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.asking import desk, examples
from tests.fuzz.hostile import junk, mutated, values

RUNS: tuple[dict[str, Any], ...] = (
    {
        "method": {"kind": "slda", "shrinkage": 0.1},
        "stream": {"kind": "embeddings", "paths": ["no.npz"], "tasks": 2},
    },
    {"method": "ncm", "stream": "embeddings:no.npz", "seed": 3, "validation": {"fraction": 0.1}},
    {
        "method": {
            "kind": "cgil",
            "generator": {"kind": "gmm", "components": 2},
            "align": {"epochs": 1},
            "prompt": {"kind": "tokens"},
        },
        "stream": {"kind": "folder", "paths": ["no"], "increments": [2, 1]},
        "backbone": {"name": "tiny-clip"},
    },
    {
        "method": {"kind": "python", "target": "no.py", "options": {"a": [1, {"b": None}]}},
        "stream": {"kind": "named", "names": ["cifar100"], "root": "nowhere"},
    },
    {
        "method": "lada",
        "stream": "hf:org/name",
        "probe": {"kind": "folder", "paths": ["no"]},
        "execution": {"workers": 1, "learner": {"cpus": 1}, "log_to": []},
    },
    {
        "method": {"kind": "autoseed"},
        "stream": {"kind": "embeddings", "paths": ["no.npz"], "columns": {"label": "x"}},
    },
    {"method": {"kind": "clts"}, "stream": {"kind": "folder", "paths": ["no"]}},
    {"method": {"kind": "dmc_ot"}, "stream": {"kind": "folder", "paths": ["no"]}},
)
SPACES: tuple[dict[str, Any], ...] = (
    {
        "base": {"stream": {"kind": "digits", "tasks": 2}, "method": {"kind": "slda"}},
        "axes": {
            "method.shrinkage": {"uniform": [0.1, 0.9]},
            "method.unseen": {"choice": ["none", "gate"]},
            "method.text": {"int": [1, 3], "when": {"method.unseen": "gate"}},
        },
        "objectives": [{"metric": "last_pooled"}, {"metric": "state_mib", "constraint": 3}],
        "sampler": {"kind": "tpe", "startup": 2},
        "scheduler": {"kind": "task_rungs", "rungs": [1]},
        "seeds": [0, 1],
        "samples": 4,
    },
    {
        "stream": {"kind": "digits"},
        "methods": [{"kind": "ncm"}, {"kind": "cgil", "generator": {"kind": "vae"}}],
        "seeds": [0],
    },
)
PROFILES: tuple[dict[str, Any], ...] = (
    {"kind": "local", "env": {"A": "b"}},
    {
        "kind": "ray",
        "address": "http://127.0.0.1:8265",
        "execution": {"store": "s3://b/r"},
        "ship": True,
        "mounts": ["/d"],
        "requirements": "no.txt",
    },
    {
        "kind": "kuberay",
        "image": "a/b:c",
        "execution": {"store": "s3://b/r"},
        "mounts": [{"path": "/d", "claim": "c"}],
        "secrets": {"HF_TOKEN": {"kubernetes": "a/b"}},
        "workers": [{"name": "gpu", "cpus": 2, "selector": {"a": "b"}}],
    },
    {
        "kind": "slurm",
        "folder": "/d/j",
        "mounts": ["/d"],
        "execution": {"store": "/d/store", "worker": {"cpus": 1}},
        "setup": ["module load cuda"],
        "partition": "gpu",
        "hours": 1,
        "node": {"cpus": 2},
    },
    {
        "kind": "launcher",
        "provider": "onprem",
        "head_ip": "10.0.0.1",
        "worker_ips": ["10.0.0.2"],
        "execution": {"store": "s3://b/r"},
        "mounts": ["/d"],
        "env": {"X": "1"},
    },
)


class _Dumper(yaml.SafeDumper):
    """Writes what no reader may be able to read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_yaml(tree: Any) -> str:
    return yaml.dump(tree, Dumper=_Dumper, allow_unicode=False)


def as_json(tree: Any) -> str:
    return json.dumps(_with_text_keys(tree), default=str)


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _with_text_keys(inner) for name, inner in value.items()}
    return [_with_text_keys(v) for v in value] if isinstance(value, list) else value


KINDS = [("x.yaml", as_yaml), ("x.json", as_json)]


@examples(150)
@given(tree=mutated(*RUNS), kind=st.sampled_from(KINDS))
def test_a_run(tree: Any, kind: Any) -> None:
    with desk() as here:
        name, written = kind
        here.write(name, written(tree))
        assert here.ask("run", "--config", f"./{name}").code == 2


@examples(100)
@given(tree=mutated(*SPACES), kind=st.sampled_from(KINDS))
def test_a_space(tree: Any, kind: Any) -> None:
    with desk() as here:
        name, written = kind
        here.write(name, written(tree))
        assert here.ask("spaces", "check", f"./{name}").code in (0, 2)


@examples(100)
@given(tree=mutated(*PROFILES), kind=st.sampled_from(KINDS))
def test_a_cluster(tree: Any, kind: Any) -> None:
    with desk() as here:
        name, written = kind
        here.write(name, written(tree))
        answer = here.ask(
            "submit",
            "--cluster",
            f"./{name}",
            "--dry-run",
            "--",
            "run",
            "ncm",
            "--stream",
            "digits",
        )
        assert answer.code in (0, 2)
        assert (
            here.ask("run", "ncm", "--stream", "embeddings:no.npz", "--config", f"./{name}").code
            == 2
        )


BOMB = "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}' if before else 'x'] * 9)}]"
    for before, name in zip(["", *"abcdef"], "abcdefg", strict=True)
)
YAML = (
    "a: &a [*a]", "a: &a {b: *a}", "method: &m {kind: ncm}\nstream: {<<: *m}",
    "<<: {method: ncm}", "method: ncm\nmethod: slda", "? [a]\n: b", "? {a: b}\n: c", "1: 2",
    "on: 1", "=: 1", "~: 1", "method: !!python/object/apply:os.system [id]", "!!set {method}",
    "method: !!python/name:os.system", "method: !!binary aGk=", "method: !!binary x",
    "method: 2024-13-40", "method: 1:60:60", "!!omap [a: 1]", "seed: .nan", "seed: -.inf",
    "seed: 0x10", "seed: 0o10", "seed: 1_000", "seed: " + "9" * 5000, "seed: 1e999",
    "method: {kind: [ncm]}", "method: {kind: {kind: ncm}}", "method: {kind: null}", "method: []",
    "stream: 3", "%YAML 9.9\n---\na: 1", "---\n---", "...", "a: *b", "a: \t- b", "'",
    '"\\x00": 1', 'method: "\\0"', 'method: "\\ud800"', "method: |\n  ncm\n", "method: >-\n ncm",
    "\ufeffmethod: ncm", "method: 'ncm'#x", f"{BOMB}\nmethod: [*g, *g]", "{" * 3000, "- " * 3000,
    "a: " * 500, "[" * 60 + "]" * 60,
    "method: {kind: python, target: a.py, options: {x: " + "[" * 62 + "]" * 62 + "}}",
)  # fmt: skip
lines = st.sampled_from((*YAML, "stream: embeddings:no.npz", "method: ncm", "seed: 1"))


@examples(80)
@given(
    lines=st.lists(
        st.sampled_from((*YAML, "stream: embeddings:no.npz", "method: ncm", "seed: 1")),
        min_size=1,
        max_size=3,
    )
)
def test_yaml_by_hand(lines: list[str]) -> None:
    with desk() as here:
        here.write("x.yaml", "\n".join(lines))
        assert here.ask("run", "--config", "./x.yaml").code == 2
        assert here.ask("spaces", "check", "./x.yaml").code == 2
        assert (
            here.ask("submit", "--cluster", "./x.yaml", "--dry-run", "--", "run", "ncm").code == 2
        )


@examples(60)
@given(
    data=st.one_of(junk, values.map(as_yaml).map(str.encode)),
    name=st.sampled_from(["x.yaml", "x.json"]),
)
def test_junk(data: bytes, name: str) -> None:
    with desk() as here:
        here.write(name, data)
        assert here.ask("run", "--config", f"./{name}").code == 2
        assert here.ask("spaces", "check", f"./{name}").code == 2
        assert here.ask(
            "submit", "--cluster", f"./{name}", "--dry-run", "--", "run", "ncm"
        ).code in (0, 2)
