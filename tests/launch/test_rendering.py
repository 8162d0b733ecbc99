"""Plans: golden texts, the providers' own schemas, and names that mean harm."""

from __future__ import annotations

import copy
import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from raycl.config.clusters import KubeRayProfile, LauncherProfile, SlurmProfile, profile_of
from raycl.errors import ConfigError
from raycl.launch.command import gather, kept_offline
from raycl.launch.kuberay import dumped, ray_cluster
from raycl.launch.launcher import launcher_file
from raycl.launch.profiles import read_profile
from raycl.launch.render import render
from tests.launch.made_plans import HOSTILE, LAUNCHED, SENT, command, difference, plan

RAY = {
    "kind": "ray",
    "execution": {"store": "s3://b/x"},
    "mounts": ["/data"],
    "env": {"RAYCL_DATA": "/data/sets"},
}
KUBERAY = {"kind": "kuberay", "image": "i:1", "execution": {"store": "s3://b/x"}}
SLURM = {
    "kind": "slurm",
    "folder": "/shared/jobs",
    "mounts": ["/shared"],
    "execution": {"store": "/shared/store"},
}
DIGITS = ("run", "slda", "--stream", "digits")
_SCHEMAS = Path(__file__).resolve().parents[3] / "shared" / "data" / "kuberay_crd"


@pytest.mark.parametrize("name", [*SENT, *LAUNCHED])
def test_plans_are_as_they_were(name: str) -> None:
    assert not difference(name), "if it is meant: python -m tests.launch.made_plans"


@pytest.mark.parametrize("name", ["kuberay", "kuberay-shared", "slurm", "aws", "gcp"])
def test_a_shipped_profile_asks_for_no_more_than_its_nodes_have(name: str) -> None:
    profile = read_profile(name)
    if isinstance(profile, SlurmProfile):
        nodes = [(profile.node, profile.nodes)]
    else:
        assert isinstance(profile, KubeRayProfile | LauncherProfile)
        nodes = [(node, node.max) for node in profile.workers]
    gpus = sum(node.gpus * count for node, count in nodes)
    asked = profile.execution
    workers, worker, learner = asked.workers, asked.worker, asked.learner
    assert workers * worker.cpus + learner.cpus <= sum(node.cpus * count for node, count in nodes)
    assert workers * worker.gpus + learner.gpus <= gpus
    assert learner.gpus or not gpus, "what trains would see no GPU"


# KubeRay's own schemas


def strict(schema: Any) -> Any:
    """The schema with unknown keys as errors, as the cluster's own reading ignores them."""
    if isinstance(schema, dict):
        out = {name: strict(value) for name, value in schema.items()}
        if "properties" in out and not out.get("x-kubernetes-preserve-unknown-fields"):
            out.setdefault("additionalProperties", False)
        return out
    return [strict(value) for value in schema] if isinstance(schema, list) else schema


def kuberay_schema(kind: str) -> Any:
    file = _SCHEMAS / f"{kind.lower()}.v1.schema.json.gz"
    if not file.is_file():
        pytest.skip("KubeRay's schemas are not beside this checkout")
    with gzip.open(file) as stream:
        schema = strict(json.load(stream))
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def kuberay_manifests() -> dict[str, Any]:
    """Every manifest that there is, by what it shows."""
    rich = profile_of(
        {
            **KUBERAY,
            "ray_version": "2.60.0",
            "service_account": "raycl",
            "deadline_hours": 1.5,
            "mounts": [{"path": "/data", "claim": "c"}],
            "secrets": {"T": {"kubernetes": "a/b"}, "U": {"env": "V"}, "W": {"file": "/run/w"}},
            "workers": [
                {"name": "a", "gpus": 2, "spot": True, "selector": {"k": "v"}, "max": 4},
                {"name": "b", "min": 1},
            ],
        }
    )
    assert isinstance(rich, KubeRayProfile)
    jobs = {name: plan(*DIGITS, profile=name) for name in ("kuberay",)}
    jobs["rich"] = plan(*DIGITS, "--config", "laptop", profile=rich)
    documents = {
        name: list(yaml.safe_load_all(job.files["rayjob.yaml"]))[1] for name, job in jobs.items()
    }
    for name in ("kuberay", "kuberay-shared"):
        profile = read_profile(name)
        assert isinstance(profile, KubeRayProfile)
        documents[f"{name} cluster"] = yaml.safe_load(dumped([ray_cluster(profile)]))
    return documents


def test_manifests_pass_the_schemas_of_kuberay_with_unknown_keys_as_errors() -> None:
    for name, manifest in kuberay_manifests().items():
        validator = jsonschema.Draft202012Validator(kuberay_schema(manifest["kind"]))
        errors = [f"{name}: {e.json_path}: {e.message}" for e in validator.iter_errors(manifest)]
        assert not errors, "\n".join(errors)


@pytest.mark.parametrize(
    "path",
    [
        ("spec", "backofLimit"),
        ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "tolerationss"),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplica"),
    ],
    ids=str,
)
def test_a_typo_in_a_manifest_would_be_seen(path: tuple[Any, ...]) -> None:
    manifest = copy.deepcopy(kuberay_manifests()["kuberay"])
    at = manifest
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = 1
    validator = jsonschema.Draft202012Validator(kuberay_schema("RayJob"))
    assert any(str(path[-1]) in error.message for error in validator.iter_errors(manifest))


def test_a_manifest_leaves_expansion_of_variables_to_nobody() -> None:
    profile = profile_of({**KUBERAY, "env": {"A": "$(RAYCL_STORE) $HOME 'x' \"y\""}})
    manifest = list(yaml.safe_load_all(plan(*DIGITS, profile=profile).files["rayjob.yaml"]))[1]
    head = manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    env = {entry["name"]: entry.get("value") for entry in head["containers"][0]["env"]}
    assert env["A"] == "$$(RAYCL_STORE) $HOME 'x' \"y\""


def test_a_config_map_that_kubernetes_would_refuse_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"# {'x' * 500_000}\nmethod: slda\n")
    configs = ("--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml"))
    with pytest.raises(ConfigError, match="ConfigMap"):
        plan("run", "--stream", "digits", *configs, profile=profile_of(KUBERAY))


# Ray's cluster launcher


@pytest.mark.parametrize("name", LAUNCHED)
def test_launcher_files_pass_the_validation_of_ray(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    profile = read_profile(name)
    validate_config(prepare_config(yaml.safe_load(launcher_file(profile))))  # type: ignore[arg-type]
    broken = yaml.safe_load(launcher_file(profile))  # type: ignore[arg-type]
    broken["max_wrokers"] = 3
    with pytest.raises(jsonschema.ValidationError, match="max_wrokers"):
        validate_config(prepare_config(broken))


# Names that mean harm


def scripts() -> dict[str, Any]:
    """Of each kind of profile, how to have the script of a plan."""

    def of_config_map(files: Any) -> str:
        return str(next(yaml.safe_load_all(files["rayjob.yaml"]))["data"]["file-0"])

    return {
        "ray": (RAY, lambda files: files["run.sh"]),
        "slurm": (SLURM, lambda files: files["run.sh"]),
        "kuberay": (KUBERAY, of_config_map),
    }


@pytest.mark.parametrize("kind", ["ray", "slurm", "kuberay"])
def test_hostile_words_arrive_as_they_are(kind: str, tmp_path: Path) -> None:
    tree, script_of = scripts()[kind]
    python = tmp_path / "my python"
    python.write_text('#!/bin/bash\nprintf "%s\\0" "$@"\n')
    python.chmod(0o755)
    settings = [p for word in HOSTILE for p in ("--set", f"backbone.name={json.dumps(word)}")]
    profile = profile_of({**tree, "python": str(python)})
    rendered = plan(*DIGITS, *settings, profile=profile)
    text = script_of(rendered.files)
    # The one thing that differs here: the folder, which is not this machine's.
    text = "\n".join(line for line in text.splitlines() if not line.startswith("cd "))
    env = {"RAYCL_STARTED": str(tmp_path / "started"), "RAYCL_ADDRESS": "h:1"}
    done = subprocess.run(
        ["bash", "-c", text], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    got = done.stdout.split("\0")[:-1]
    assert got[:2] == ["-m", "raycl"] and got[-len(settings) :] == settings
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_values_of_variables_arrive_as_they_are(word: str, tmp_path: Path) -> None:
    batch = plan(*DIGITS, profile=profile_of({**SLURM, "env": {"A": word}})).files["job.sbatch"]
    begin = batch.index("export A=")
    export = batch[begin : batch.index("export RAYCL_STORE")]
    done = subprocess.run(
        ["bash", "-c", export + 'printf %s "$A"'], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == word and not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("word", [w for w in HOSTILE if "/" not in w])
def test_files_of_hostile_names_travel(word: str, tmp_path: Path) -> None:
    file = tmp_path / f"{word}.yaml"
    file.write_text("method: slda\nstream: digits\n")
    rendered = plan("run", "--config", str(file), profile=profile_of(RAY))
    rendered.write(tmp_path / "plan")
    assert (tmp_path / "plan/files/0" / file.name).read_text() == file.read_text()
    manifest = plan("run", "--config", str(file), profile=profile_of(KUBERAY))
    documents = list(yaml.safe_load_all(manifest.files["rayjob.yaml"]))
    assert documents[0]["data"]["file-1"] == file.read_text()


# What travels, and what must be there


def test_configs_and_methods_of_ones_own_travel(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Mine: ...\n")
    (tmp_path / "c.yaml").write_text("stream: digits\n")
    rendered = plan(
        "run", f"{tmp_path}/mine.py:Mine", f"--config={tmp_path}/c.yaml", profile=profile_of(RAY)
    )
    assert rendered.files["files/0/mine.py"] == "class Mine: ...\n"
    assert "files/0/mine.py:Mine --config files/1/c.yaml" in rendered.files["run.sh"]
    assert str(tmp_path) not in rendered.text()


def test_what_the_user_asked_of_the_execution_stands(tmp_path: Path) -> None:
    profile = profile_of({**RAY, "execution": {
        "store": "s3://b/x", "workers": 8, "worker": {"cpus": 4, "gpus": 1}}})  # fmt: skip
    (tmp_path / "c.yaml").write_text("execution: {worker: {gpus: 0.5}}\n")
    asked = ("--workers", "2", "--set", "execution.worker.cpus=3", "--config", f"{tmp_path}/c.yaml")
    script = plan(*DIGITS, *asked, profile=profile).files["run.sh"]
    assert "--workers 8" not in script and "cpus=4" not in script and "gpus=1" not in script
    alone = plan(*DIGITS, profile=profile).files["run.sh"]
    assert "--workers 8" in alone and "cpus=4" in alone and "gpus=1" in alone


@pytest.mark.parametrize(
    "args",
    [
        ("embed", "folder:/data/a"),
        ("fit", "--embeddings", "/data/a.npz"),
        ("caption", "--images", "/data/a"),
        ("synth", "--prompts", "/data/p.csv", "--out", "/data/i", "--set", "steps=30"),
    ],
    ids=lambda args: args[0],
)
def test_whatever_works_on_workers_gets_what_the_profile_gives_each(args: tuple[str, ...]) -> None:
    profile = profile_of({**RAY, "execution": {"store": "s3://b/x", "worker": {"gpus": 1}}})
    assert "--set execution.worker.gpus=1.0" in plan(*args, profile=profile).files["run.sh"]
    own = plan(*args, "--set", "execution.worker.gpus=0.5", profile=profile).files["run.sh"]
    assert "gpus=0.5" in own and "gpus=1" not in own


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["run", "slda", "--stream", "folder:sets/a"], ["the stream must be where", "/data"]),
        (["run", "slda", "--stream", "folder:/other/a"], ["the stream must be where"]),
        (["run", "slda", "--stream", "folder:/data/a+/database/b"], ["/database/b"]),
        (["run", "slda", "--stream", "folder:/data/../etc"], ["the stream"]),
        ([*DIGITS, "--probe", "embeddings:x.npz"], ["the probe must be where"]),
        ([*DIGITS, "--backbone", "local-dir:clip"], ["the backbone must be where"]),
        ([*DIGITS, "--backbone", "ViT-B-32:w/a.safetensors"], ["the backbone must be where"]),
        ([*DIGITS, "--store", "mine"], ["the store must be where", "s3://"]),
        ([*DIGITS, "--set", "execution.store=~/x"], ["the store must be where"]),
        ([*DIGITS, "--set", "stream.paths=[x.npz]"], ["x.npz"]),
        (["fit", "--embeddings", "x.npz"], ["the stream must be where"]),
        (["fit", "--embeddings", "/data/x.npz", "--out", "bank"], ["--out must be where"]),
        (["embed", "folder:sets/a"], ["the stream must be where"]),
        ([*DIGITS, "--set", "a.b=hf_" + "a" * 24], ["holds a secret"]),
        (["run", "no.py", "--stream", "digits"], ["no such file", "no.py"]),
        ([*DIGITS, "--config", "no.yaml"], ["no such file"]),
        ([*DIGITS, "--set", "execution=null"], ["execution holds options"]),
        ([*DIGITS, "--set", "execution.workers=x"], ["execution.workers", "'x'"]),
        ([*DIGITS, "--set", "method.shrnkage=1"], ["method.shrnkage", "'shrinkage'"]),
        (["run", "ncm", "--set", "stream={kind: folder, paths: 3}"], ["the stream must be"]),
        (["rnu"], ["rnu", "run"]),
        (["doctor"], ["doctor is not for a cluster", "run"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_what_nodes_cannot_see_is_refused(args: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(*args, profile=profile_of(RAY))
    said = str(caught.value)
    assert all(part in said for part in parts), said


def test_data_on_mounts_is_fine() -> None:
    stream = "folder:/data/a+$RAYCL_DATA/b"
    backbone = ("--backbone", "hf-hub:org/repo")
    assert plan("run", "slda", "--stream", stream, *backbone, profile=profile_of(RAY))
    with pytest.raises(ConfigError, match="does not set"):
        plan("run", "slda", "--stream", stream, profile=profile_of({**RAY, "env": {}}))


@pytest.mark.parametrize("stream", ["xtail", "cifar100+dtd", "hf:org/zoo"])
def test_data_sets_by_name_are_below_the_nodes_own_root(stream: str) -> None:
    args = ("run", "slda", "--stream", stream)
    script = plan(*args, profile=profile_of(RAY)).files["run.sh"]
    assert f"--stream {stream}" in script
    with pytest.raises(ConfigError, match="RAYCL_DATA, which the profile does not set"):
        plan(*args, profile=profile_of({**RAY, "env": {}}))
    with pytest.raises(ConfigError, match="the stream must be where every node"):
        plan(*args, profile=profile_of({**RAY, "env": {"RAYCL_DATA": "/elsewhere"}}))


def test_on_this_machine_a_store_that_nobody_named_is_that_of_the_environment() -> None:
    def named(profile: dict[str, Any], *args: str) -> bool:
        return any(
            "STORE" in word for word in plan(*DIGITS, *args, profile=profile_of(profile)).argv
        )

    assert not named({}) and not named({"execution": {"workers": 2}})
    assert not named({}, "--store", "mine")  # the option itself says it
    assert named({"execution": {"store": "raycl-store"}})
    assert named({"env": {"RAYCL_STORE": "mine"}})


def test_no_store_or_one_that_is_read_only_is_refused() -> None:
    with pytest.raises(ConfigError, match="no store is named"):
        plan(*DIGITS, profile=profile_of({"kind": "ray"}))
    mounts = [{"path": "/data", "read_only": True}]
    with pytest.raises(ConfigError, match="read only"):
        plan(*DIGITS, "--store", "/data/s", profile=profile_of({**RAY, "mounts": mounts}))


def test_the_name_is_what_is_sent_and_nothing_else(tmp_path: Path) -> None:
    profile = profile_of(RAY)
    first = plan(*DIGITS, profile=profile)
    assert first.name == plan(*DIGITS, profile=profile, attempt=7).name
    moved = profile_of({**RAY, "address": "http://elsewhere:1"})
    assert first.name == plan(*DIGITS, profile=moved).name
    assert first.name != plan(*DIGITS, "--seed", "1", profile=profile).name
    config = tmp_path / "c.yaml"
    names = set()
    for text in ("seed: 1\n", "seed: 2\n"):
        config.write_text(text)
        names.add(plan(*DIGITS, "--config", str(config), profile=profile).name)
    assert len(names) == 2


def test_an_option_that_does_not_exist_is_told_before_sending() -> None:
    import click

    with pytest.raises(click.NoSuchOption):
        command("run", "slda", "--straem", "digits")


def test_requirements_travel_and_comments_do_not(tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("# pinned\nnumpy==2.4.6  # exact\n\nray==2.60.0\n")
    rendered = plan(*DIGITS, profile=profile_of({**RAY, "requirements": str(pins), "ship": True}))
    assert rendered.runtime_env["pip"] == ["numpy==2.4.6", "ray==2.60.0"]
    assert rendered.runtime_env["py_modules"] == ["raycl"]


def test_a_job_knows_its_id_and_which_variables_are_secret() -> None:
    secrets = {"LICENCE": {"env": "L"}, "HF_TOKEN": {"file": "/run/hf"}}
    for tree in (RAY, SLURM):
        rendered = plan(*DIGITS, profile=profile_of({**tree, "secrets": secrets}), attempt=3)
        lines = rendered.files["run.sh"].splitlines()
        assert f"export RAYCL_JOB={rendered.name}-3" in lines
        assert "export RAYCL_SECRETS=HF_TOKEN,LICENCE" in lines


def test_offline_flags_are_kept_unless_the_profile_says_otherwise() -> None:
    here = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HOME": "/srv/me"}
    profile = profile_of({**RAY, "env": {"TRANSFORMERS_OFFLINE": "0"}})
    asked = kept_offline(command(*DIGITS, profile=profile), here)
    variables = json.loads(render(asked, profile).files["runtime_env.json"])["env_vars"]
    assert variables["HF_HUB_OFFLINE"] == "1" and variables["TRANSFORMERS_OFFLINE"] == "0"
    assert "HOME" not in variables


def test_secrets_are_fetched_where_the_command_runs(tmp_path: Path) -> None:
    file = tmp_path / "a token"
    file.write_text("s3cr3t\n")
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\nprintf "%s|%s" "$A" "$B"\n')
    python.chmod(0o755)
    secrets = {"A": {"file": str(file)}, "B": {"env": "OTHER"}}
    profile = profile_of({**RAY, "python": str(python), "secrets": secrets})
    script = plan(*DIGITS, profile=profile).files["run.sh"]

    def run(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        env = {"PATH": "/usr/bin:/bin", **env}
        return subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)

    assert run({"OTHER": "x y"}).stdout == "s3cr3t|x y"
    missing = run({})
    assert missing.returncode != 0 and "no such variable" in missing.stderr


def test_the_image_is_made_of_files_that_exist() -> None:
    root = Path(__file__).resolve().parents[2]
    copied = [
        name
        for line in (root / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY")
        for name in line.split()[1:-1]
    ]
    assert "pyproject.toml" in copied and all((root / name).exists() for name in copied)


def test_a_search_space_travels_and_a_shipped_one_need_not(tmp_path: Path) -> None:
    space = tmp_path / "s.yaml"
    space.write_text("method: slda\n")
    moved = gather(("sweep", str(space), "--samples", "3"), {"--samples": True})
    assert moved.args == ("sweep", "files/0/s.yaml", "--samples", "3")
    assert moved.files == {"files/0/s.yaml": "method: slda\n"}
    shipped = gather(("sweep", "--samples", "3", "paper/cgil"), {"--samples": True})
    assert shipped.args[-1] == "paper/cgil" and not shipped.files
