"""Profiles of clusters: what is refused, in which words, and that no secret is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raycl import shipped
from raycl.cli.run import config_of
from raycl.config.clusters import Mount, execution_part, profile_of, under
from raycl.errors import ConfigError
from raycl.launch.profiles import read_profile

KUBERAY = {"kind": "kuberay", "image": "raycl:1"}
SLURM = {"kind": "slurm", "folder": "/shared/jobs", "mounts": ["/shared"]}
AWS = {"kind": "launcher", "provider": "aws"}
TOKEN = "hf_" + "a" * 24


@pytest.mark.parametrize("name", shipped.names("clusters"))
def test_every_shipped_profile_is_one(name: str) -> None:
    assert read_profile(name).execution


def test_a_file_without_a_kind_is_this_machine() -> None:
    assert read_profile("laptop").kind == "local"


def run_with(*configs: str) -> Any:
    nothing = dict.fromkeys(("probe", "backbone", "seed", "stop_after"))
    place = dict.fromkeys(("store", "pool", "address", "workers"))
    return config_of(
        method="ncm", stream="digits", skip_corrupt=False, configs=configs, settings=(),
        **nothing, **place,
    )  # fmt: skip


def test_config_takes_the_execution_block_of_a_profile_alone() -> None:
    execution = run_with("slurm").execution
    assert execution.store == "/shared/raycl/store" and execution.worker.gpus == 1
    assert run_with("slurm").experiment == run_with("laptop").experiment
    assert execution_part({"method": "ncm"}) == {"method": "ncm"}


@pytest.mark.parametrize(
    ("tree", "parts"),
    [
        ({"kind": "slrum"}, ["slrum", "slurm"]),
        ({**KUBERAY, "imgae": "x"}, ["imgae", "image"]),
        ({"kind": "kuberay"}, ["image is missing"]),
        ({**KUBERAY, "name": "My_Cluster"}, ["name", "lower-case"]),
        ({**KUBERAY, "image": "a b"}, ["image", "letters"]),
        ({**KUBERAY, "mounts": ["/data"]}, ["/data needs a claim"]),
        ({**KUBERAY, "workers": []}, ["workers"]),
        ({**KUBERAY, "workers": [{"name": "a"}, {"name": "a"}]}, ["two node types are named a"]),
        ({**KUBERAY, "workers": [{"min": 3, "max": 2}]}, ["max=2 is less than min=3"]),
        ({**KUBERAY, "head": {"object_store_gib": 4, "shm_gib": 2}}, ["does not fit", "/dev/shm"]),
        ({**KUBERAY, "head": {"memory_gib": 4, "shm_gib": 4}}, ["leaves nothing of 4"]),
        ({**KUBERAY, "workers": [{"gpus": True}]}, ["yes or no"]),
        ({"kind": "slurm", "folder": "/shared"}, ["/shared is not on a mount"]),
        ({**SLURM, "folder": "/shared/../etc"}, ["absolute path, without .."]),
        ({**SLURM, "folder": "/shared/$(id)"}, ["folder and temporary may hold"]),
        ({**SLURM, "partition": "a\n#SBATCH --wrap=x"}, ["partition", "letters"]),
        ({**SLURM, "setup": ["one\ntwo"]}, ["setup", "one line"]),
        ({**SLURM, "secrets": {"A_B": {"kubernetes": "a/b"}}}, ["no kubernetes secrets"]),
        (AWS, ["aws needs region"]),
        ({**AWS, "region": "r"}, ["head needs an instance"]),
        ({"kind": "launcher", "provider": "onprem"}, ["onprem needs head_ip"]),
        ({"kind": "launcher", "provider": "azure"}, ["provider"]),
        ({"kind": "ray", "address": "head:8265"}, ["http://host:8265"]),
        ({"kind": "ray", "address": "http://h:8265;id"}, ["http://host:8265"]),
        ({"kind": "ray", "env": {"A B": "1"}}, ["'a b' is not the name of a variable"]),
        ({"kind": "ray", "execution": {"wokers": 2}}, ["execution.wokers", "workers"]),
        ({"kind": "ray", "secrets": {"T": {"env": "A", "file": "/b"}}}, ["one place"]),
        ({"kind": "ray", "secrets": {"T": {"kubernetes": "nokey"}}}, ["name/key"]),
    ],
    ids=lambda value: None if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_refused(tree: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        profile_of(tree)
    said = str(caught.value).lower()
    assert all(part.lower() in said for part in parts), said


@pytest.mark.parametrize(
    "tree",
    [
        {"env": {"HF_TOKEN": "s3cr3t"}},
        {"env": {"WANDB_API_KEY": "s3cr3t"}},
        {"env": {"DB_PASSWORD": 53273}},
        {"env": {"HARMLESS": TOKEN}},
        {"env": {"HARMLESS": "postgres://ann:s3cr3t@db/x"}},
        {"secrets": {"HF_TOKEN": "s3cr3t"}},
        {"secrets": {"HF_TOKEN": 53273}},
        {"secrets": {"HF_TOKEN": {"value": "s3cr3t"}}},
        {"secrets": {"HF_TOKEN": {"env": "s3cr3t-value!"}}},
        {"execution": {"store": "s3://key:s3cr3t@bucket/x"}},
        {"python": TOKEN},
        {"address": "http://ann:s3cr3t@head:8265"},
    ],
    ids=str,
)
def test_a_secret_in_a_profile_is_refused_and_never_shown(tree: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        profile_of({"kind": "ray", **tree})
    said = str(caught.value)
    assert not any(part in said for part in ("s3cr3t", "53273", TOKEN)), said


def test_secrets_by_reference_and_paths_to_them_are_fine() -> None:
    profile = profile_of(
        {
            "kind": "ray",
            "env": {"HF_TOKEN_PATH": "/run/secrets/hf", "RAYCL_DATA": "/data"},
            "secrets": {"HF_TOKEN": {"file": "/run/secrets/hf"}, "A": {"env": "B"}},
        }
    )
    assert set(profile.secrets) == {"HF_TOKEN", "A"}


def test_a_path_is_under_a_mount_by_whole_names() -> None:
    mounts = (Mount(path="/data/"), Mount(path="/x"))
    assert under("/data", mounts) and under("/data/sets/a", mounts)
    assert not under("/database", mounts) and not under("/", mounts)


def test_a_profile_is_read_from_a_file_without_code(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("kind: !!python/object/apply:os.system [id]\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_profile(str(file))
