"""Files for Ray's cluster launcher (`ray up`): AWS, GCP, and hosts of your own.

Guarantees: the file passes the launcher's own validation; the dashboard listens on loopback
alone and wants the token, which is copied from a file of this machine and is in no file here.
"""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import Any

import yaml

from raycl.config.clusters import LauncherProfile, Node

FILE = "cluster.yaml"
_PORT = 6379
_TOKEN = "~/.ray/auth_token"

Tree = dict[str, Any]


def launcher_file(profile: LauncherProfile) -> str:
    """The YAML that `ray up`, `ray down` and `ray dashboard` take."""
    return yaml.safe_dump(cluster(profile), sort_keys=False, width=100)


def cluster(profile: LauncherProfile) -> Tree:
    """What the launcher reads, as data."""
    key = {"ssh_private_key": profile.ssh_key} if profile.ssh_key else {}
    growing = {} if profile.provider == "onprem" else _node_types(profile)
    return {
        "cluster_name": profile.name,
        "max_workers": len(profile.worker_ips) or sum(node.max for node in profile.workers),
        "idle_timeout_minutes": profile.idle_minutes,
        "provider": _provider(profile),
        "auth": {"ssh_user": profile.ssh_user, **key},
        **growing,
        **({"docker": _docker(profile)} if profile.image else {}),
        "file_mounts": {_TOKEN: profile.token_file},
        "setup_commands": list(profile.setup),
        "head_start_ray_commands": _start(
            profile, profile.head,
            f"--head --port={_PORT} --dashboard-host=127.0.0.1 --num-cpus=0 "
            "--autoscaling-config=~/ray_bootstrap_config.yaml",
        ),
        "worker_start_ray_commands": _start(
            profile, _smallest(profile.workers), f"--address=$RAY_HEAD_IP:{_PORT}"
        ),
    }  # fmt: skip


def _smallest(nodes: tuple[Node, ...]) -> Node:
    """All workers are started by one command, so the least of them sets the object store."""
    return min(nodes, key=lambda node: node.object_store, default=Node())


def _start(profile: LauncherProfile, node: Node, options: str) -> list[str]:
    folder = str(PurePosixPath(profile.python).parent)
    path = f'export PATH={shlex.quote(folder)}:"$PATH"; ' if "/" in profile.python else ""
    memory = round(node.object_store * 2**30)
    settings = "RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0"
    start = f"{settings} ray start {options} --object-store-memory={memory}"
    return [f"{path}ray stop", f"{path}ulimit -n 65536; {start}"]


def _provider(profile: LauncherProfile) -> Tree:
    match profile.provider:
        case "aws":
            zone = {"availability_zone": profile.zone} if profile.zone else {}
            return {"type": "aws", "region": profile.region, **zone, "cache_stopped_nodes": False}
        case "gcp":
            return {
                "type": "gcp",
                "region": profile.region,
                "availability_zone": profile.zone,
                "project_id": profile.project,
                "cache_stopped_nodes": False,
            }
        case "onprem":
            return {
                "type": "local",
                "head_ip": profile.head_ip,
                "worker_ips": list(profile.worker_ips),
            }


def _node_types(profile: LauncherProfile) -> Tree:
    head = {
        "resources": {"CPU": 0},
        "node_config": _machine(profile, profile.head),
        "max_workers": 0,
        "min_workers": 0,
    }
    workers = {
        node.name: {
            "resources": {"CPU": node.cpus, **({"GPU": node.gpus} if node.gpus else {})},
            "node_config": _machine(profile, node),
            "min_workers": node.min,
            "max_workers": node.max,
        }
        for node in profile.workers
    }
    types = {profile.head.name: head, **workers}
    return {"available_node_types": types, "head_node_type": profile.head.name}


def _machine(profile: LauncherProfile, node: Node) -> Tree:
    return _of_aws(profile, node) if profile.provider == "aws" else _of_gcp(profile, node)


def _of_aws(profile: LauncherProfile, node: Node) -> Tree:
    image = {"ImageId": profile.machine_image} if profile.machine_image else {}
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}} if node.spot else {}
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": profile.disk_gib}}
    return {"InstanceType": node.instance, **image, "BlockDeviceMappings": [disk], **spot}


def _of_gcp(profile: LauncherProfile, node: Node) -> Tree:
    source = {"sourceImage": profile.machine_image} if profile.machine_image else {}
    disk = {
        "boot": True,
        "autoDelete": True,
        "type": "PERSISTENT",
        "initializeParams": {"diskSizeGb": profile.disk_gib, **source},
    }
    scheduling: list[Tree] = [{"preemptible": True}] if node.spot else []
    gpus: Tree = {}
    if node.gpus and node.gpu:
        gpus["guestAccelerators"] = [{"acceleratorType": node.gpu, "acceleratorCount": node.gpus}]
        gpus["metadata"] = {"items": [{"key": "install-nvidia-driver", "value": "True"}]}
        # A machine with a GPU cannot be moved to another host while it runs.
        scheduling.append({"onHostMaintenance": "TERMINATE"})
    placed = {"scheduling": scheduling} if scheduling else {}
    return {"machineType": node.instance, "disks": [disk], **gpus, **placed}


def _docker(profile: LauncherProfile) -> Tree:
    def options(node: Node) -> list[str]:
        gpus = ["--gpus=all"] if node.gpus else []
        return [f"--shm-size={round(node.shm * 1024)}m", "--ulimit nofile=65536:65536", *gpus]

    return {
        "image": profile.image,
        "container_name": "raycl",
        "pull_before_run": True,
        "head_run_options": options(profile.head),
        "worker_run_options": options(_smallest(profile.workers)),
    }
