"""KubeRay's manifests: a RayJob per command, or a RayCluster that stays.

Guarantees: no value of a profile or command is text in a template: manifests are built as
data and dumped; the job's entrypoint is two safe words, so neither KubeRay's shell nor
ours reads an argument twice; the dashboard wants a token; the head does no work.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from raycl.config.clusters import KubeRayProfile, Node
from raycl.errors import ConfigError
from raycl.launch.command import Command
from raycl.launch.entrypoint import SCRIPT, environment, script
from raycl.launch.plan import Plan, name_of

FOLDER = "/etc/raycl/plan"
MANIFEST = "rayjob.yaml"
CLUSTER_MANIFEST = "raycluster.yaml"
LABEL = "raycl-command"
_MOST_BYTES = 900_000
"""Of a ConfigMap; Kubernetes refuses 1 MiB."""
_SPOT_LABELS = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}

Manifest = dict[str, Any]


def job_plan(command: Command, profile: KubeRayProfile, attempt: int) -> Plan:
    """A RayJob, with a ConfigMap of what travels."""
    name = name_of(command, profile)
    manifests = [
        _config_map(command, profile, name, attempt),
        _ray_job(command, profile, name, attempt),
    ]
    return Plan(
        name=name,
        attempt=attempt,
        files={MANIFEST: dumped(manifests)},
        argv=(*kubectl(profile), "create", "--filename", MANIFEST, "--output", "json"),
    )


def kubectl(profile: KubeRayProfile) -> tuple[str, ...]:
    """kubectl with the profile's context and namespace."""
    context = ("--context", profile.context) if profile.context else ()
    return ("kubectl", *context, "--namespace", profile.namespace)


def ray_cluster(profile: KubeRayProfile) -> Manifest:
    """A RayCluster that stays until it is taken down."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(profile, profile.name, {}),
        "spec": _cluster_spec(profile, _variables(profile.env), (), {}),
    }


def dumped(manifests: list[Manifest]) -> str:
    """YAML of several documents; text that looks like another type is quoted."""
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=100)


class _Dumper(yaml.SafeDumper):
    """Scripts as blocks of lines, and no references between parts."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _metadata(profile: KubeRayProfile, name: str, labels: dict[str, str]) -> Manifest:
    return {
        "name": name,
        "namespace": profile.namespace,
        "labels": {"app.kubernetes.io/managed-by": "raycl", **labels},
    }


def _config_map(command: Command, profile: KubeRayProfile, name: str, attempt: int) -> Manifest:
    texts = _texts(command, profile, f"{name}-{attempt}")
    size = sum(len(text.encode()) for text in texts.values())
    if size > _MOST_BYTES:
        raise ConfigError(
            "the files that travel with the command are more than a ConfigMap holds",
            got=f"{size / 2**20:.1f} MiB",
            do="put your method into the image, and name it by its module",
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(profile, f"{name}-{attempt}", {LABEL: name}),
        "data": {_key(number): text for number, text in enumerate(texts.values())},
    }


def _texts(command: Command, profile: KubeRayProfile, job: str) -> dict[str, str]:
    return {SCRIPT: script(command, profile, job, folder=FOLDER, exports=False), **command.files}


def _key(number: int) -> str:
    return f"file-{number}"  # a key has fewer characters than a file's name may have


def _ray_job(command: Command, profile: KubeRayProfile, name: str, attempt: int) -> Manifest:
    texts = _texts(command, profile, f"{name}-{attempt}")
    items = [{"key": _key(number), "path": path} for number, path in enumerate(texts)]
    volume = {"name": "plan", "configMap": {"name": f"{name}-{attempt}", "items": items}}
    variables = _variables(environment(command, profile))
    deadline = profile.deadline_hours
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(profile, f"{name}-{attempt}", {LABEL: name}),
        "spec": {
            "entrypoint": f"bash {FOLDER}/{SCRIPT}",
            "submissionMode": "K8sJobMode",
            # Each retry is a new cluster; the command continues from the store.
            "backoffLimit": profile.retries,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": profile.keep_seconds,
            **({"activeDeadlineSeconds": round(deadline * 3600)} if deadline else {}),
            "runtimeEnvYAML": yaml.safe_dump(
                {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}}, width=100
            ),
            "rayClusterSpec": _cluster_spec(
                profile, variables, (volume,), {"name": "plan", "mountPath": FOLDER}
            ),
        },
    }


def _cluster_spec(
    profile: KubeRayProfile,
    variables: list[Manifest],
    volumes: tuple[Manifest, ...],
    mount: Manifest,
) -> Manifest:
    grows = any(node.max > node.min for node in profile.workers)
    version = {"rayVersion": profile.ray_version} if profile.ray_version else {}
    autoscaler = {
        "idleTimeoutSeconds": profile.idle_seconds,
        "upscalingMode": "Default",
        "version": "v2",
    }
    return {
        **version,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": grows,
        **({"autoscalerOptions": autoscaler} if grows else {}),
        "headGroupSpec": {
            # The head of a cluster keeps it alive; work that eats its memory would end all.
            "rayStartParams": {
                "num-cpus": "0",
                "dashboard-host": "0.0.0.0",
                **_store(profile.head),
            },
            "template": _pod(profile, profile.head, "head", variables, volumes, mount),
        },
        "workerGroupSpecs": [
            {
                "groupName": node.name,
                "replicas": node.min,
                "minReplicas": node.min,
                "maxReplicas": node.max,
                "rayStartParams": _store(node),
                "template": _pod(profile, node, "worker", variables, volumes, mount),
            }
            for node in profile.workers
        ],
    }


def _store(node: Node) -> dict[str, str]:
    return {"object-store-memory": str(round(node.object_store * 2**30))}


def _pod(
    profile: KubeRayProfile,
    node: Node,
    role: str,
    variables: list[Manifest],
    volumes: tuple[Manifest, ...],
    mount: Manifest,
) -> Manifest:
    shared = [
        {"name": f"mount-{i}", "mountPath": m.path, **({"readOnly": True} if m.read_only else {})}
        for i, m in enumerate(profile.mounts)
    ]
    claims = [
        {"name": f"mount-{i}", "persistentVolumeClaim": {
            "claimName": m.claim, **({"readOnly": True} if m.read_only else {})}}
        for i, m in enumerate(profile.mounts)
    ]  # fmt: skip
    memory = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{_mib(node.shm)}Mi"}}
    container = {
        "name": f"ray-{role}",
        "image": profile.image,
        "resources": _resources(node),
        "env": [*variables, *_secrets(profile)],
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},
            *shared,
            *([{**mount, "readOnly": True}] if mount else []),
        ],
    }
    account = {"serviceAccountName": profile.service_account} if profile.service_account else {}
    return {
        "spec": {
            **account,
            **_placed(node),
            "containers": [container],
            "volumes": [memory, *claims, *volumes],
        }
    }


def _resources(node: Node) -> Manifest:
    gpus = {"nvidia.com/gpu": str(node.gpus)} if node.gpus else {}
    size = {"cpu": str(node.cpus), "memory": f"{_mib(node.memory_gib)}Mi", **gpus}
    return {"requests": dict(size), "limits": dict(size)}


def _placed(node: Node) -> Manifest:
    """Where the pod may be: labels, the marks of GPU hosts, and spot hosts where asked."""
    out: Manifest = {"nodeSelector": dict(node.selector)} if node.selector else {}
    tolerations = []
    if node.gpus:
        tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists"})
    if node.spot:
        terms = [
            {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}
            for key, value in _SPOT_LABELS.items()
        ]
        required = {"nodeSelectorTerms": terms}
        out["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}
        }
        tolerations += [
            {"key": key, "operator": "Equal", "value": value} for key, value in _SPOT_LABELS.items()
        ]
    return {**out, **({"tolerations": tolerations} if tolerations else {})}


def _variables(env: dict[str, str]) -> list[Manifest]:
    # Kubernetes itself would put variables in place of $(NAME).
    return [{"name": k, "value": v.replace("$(", "$$(")} for k, v in env.items()]


def _secrets(profile: KubeRayProfile) -> list[Manifest]:
    out = []
    for name, secret in sorted(profile.secrets.items()):
        if secret.kubernetes:
            place, _, key = secret.kubernetes.partition("/")
            reference = {"secretKeyRef": {"name": place, "key": key}}
            out.append({"name": name, "valueFrom": reference})
    return out


def _mib(gib: float) -> int:
    return round(gib * 1024)


def created(text: str) -> str:
    """The uid of the RayJob in kubectl's answer to `create --output json`."""
    items = json.loads(text)
    found = items.get("items", [items])
    return str(next(i["metadata"]["uid"] for i in found if i["kind"] == "RayJob"))
