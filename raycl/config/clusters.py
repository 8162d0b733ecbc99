"""Cluster profiles: where commands are sent, in one typed model.

A profile is a file in `clusters/` or of your own: an `execution` block, and how a command
gets there (`kind`). Without a kind it is this machine. `--config` takes the execution block
of the same file alone. Nothing here enters a key.

Guarantees: a typo is an error that names what exists; what ends in a shell script or a
manifest has no control characters; no secret is written in a profile: variables that are
named like one, values that look like one and addresses with a password are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from raycl.config.execution import Execution
from raycl.config.loading import check
from raycl.config.spec import Spec
from raycl.errors import ConfigError
from raycl.redaction import has_password, is_secret_name, looks_secret

KINDS = ("local", "ray", "kuberay", "slurm", "launcher")
LONGEST_SHOWN = 120
JOBS_ADDRESS = "http://127.0.0.1:8265"
"""Where a tunnel or a port-forward puts the Jobs API of a cluster that is not open to us."""


def _line(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


def _word(text: str) -> str:
    if not re.fullmatch(r"[\w.,:@/+*=%-]+", text):
        raise ValueError("may hold letters, digits and . , : @ / + * = % - only")
    return text


def _dns_name(text: str) -> str:
    if len(text) > 40 or not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", text):
        raise ValueError("must be lower-case letters, digits and dashes, 40 at most")
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/") or ".." in text.split("/") or not text.isprintable():
        raise ValueError("must be an absolute path, without ..")
    return text.rstrip("/") or "/"


Line = Annotated[str, AfterValidator(_line)]
Word = Annotated[str, AfterValidator(_word)]
DnsName = Annotated[str, AfterValidator(_dns_name)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class Mount(Spec):
    """A folder that every node sees at the same path."""

    path: AbsolutePath
    claim: DnsName | None = None
    """On Kubernetes: the persistent volume claim behind it."""
    read_only: bool = False

    @model_validator(mode="before")
    @classmethod
    def _may_be_a_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class Secret(Spec):
    """Where a node finds the value of a secret variable; raycl itself never reads it."""

    env: Word | None = None
    """A variable that the nodes have already, under this or another name."""
    file: AbsolutePath | None = None
    """A file that the node which runs the command can read."""
    kubernetes: Word | None = None
    """NAME/KEY of a Kubernetes secret."""

    @model_validator(mode="before")
    @classmethod
    def _is_never_inline(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError("a secret is named by reference: {env: …}, {file: …}, {kubernetes: …}")
        return value

    @model_validator(mode="after")
    def _names_one_place(self) -> Secret:
        named = [place for place in (self.env, self.file, self.kubernetes) if place]
        if len(named) != 1:
            raise ValueError("a secret has one place: env, file or kubernetes")
        if self.env and not _is_variable(self.env):
            raise ValueError("env names a variable, never its value")
        if self.kubernetes and not re.fullmatch(r"[a-z0-9.-]+/[\w.-]+", self.kubernetes):
            raise ValueError("write kubernetes: NAME/KEY")
        return self


class Node(Spec):
    """A type of node: what one of them has, and how many there may be."""

    name: DnsName = "workers"
    cpus: int = Field(4, ge=1)
    gpus: int = Field(0, ge=0)
    gpu: Word | None = None
    """The accelerator's name as the place spells it, such as A100 or nvidia-l4."""
    memory_gib: float = Field(16, gt=0)
    shm_gib: float | None = Field(None, gt=0)
    """Size of /dev/shm; null: what the object store needs, or the host's own."""
    object_store_gib: float | None = Field(None, gt=0)
    """What Ray may keep in shared memory; null: three tenths of the memory."""
    min: int = Field(0, ge=0)
    max: int = Field(1, ge=0)
    spot: bool = False
    """Cheaper nodes that may be taken away at any time: runs continue from the store."""
    instance: Word | None = None
    """The cloud's name of the machine, such as g5.xlarge or n1-standard-8."""
    selector: dict[str, str] = Field(default_factory=dict)
    """On Kubernetes: labels that a host must have."""

    @property
    def object_store(self) -> float:
        """GiB of the object store."""
        return self.object_store_gib or round(0.3 * self.memory_gib, 2)

    @property
    def shm(self) -> float:
        """GiB of /dev/shm, a tenth more than the object store unless it was set."""
        return self.shm_gib or round(1.1 * self.object_store, 2)

    @model_validator(mode="after")
    def _fits(self) -> Node:
        if self.max < self.min:
            raise ValueError(f"max={self.max} is less than min={self.min}")
        if self.object_store > self.shm:
            raise ValueError(
                f"an object store of {self.object_store} GiB does not fit into /dev/shm of "
                f"{self.shm} GiB: Ray would keep it on disk"
            )
        if self.shm >= self.memory_gib:
            raise ValueError(
                f"/dev/shm of {self.shm} GiB leaves nothing of {self.memory_gib} GiB of memory"
            )
        return self


class _Profile(Spec):
    """What every way of running has."""

    execution: Execution = Execution()
    """As in any config file: the store above all, the workers and what each holds."""
    python: Line = "python"
    """The interpreter on the nodes that has raycl and Ray."""
    mounts: tuple[Mount, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, Secret] = Field(default_factory=dict)

    @field_validator("env")
    @classmethod
    def _holds_no_secret(cls, env: dict[str, str]) -> dict[str, str]:
        # The value is in no message: that would print it.
        for name, value in env.items():
            if not _is_variable(name):
                raise ValueError(f"{name!r} is not the name of a variable")
            if is_secret_name(name) or looks_secret(value):
                raise ValueError(
                    f"{name} looks like a secret: name it under `secrets` by reference, "
                    "such as {env: NAME}"
                )
            if "\0" in value:
                raise ValueError(f"{name} holds a zero byte")
        return env

    @field_validator("secrets")
    @classmethod
    def _names_variables(cls, secrets: dict[str, Secret]) -> dict[str, Secret]:
        for name in secrets:
            if not _is_variable(name):
                raise ValueError(f"{name!r} is not the name of a variable")
        return secrets

    @model_validator(mode="after")
    def _has_no_password_in_the_store(self) -> _Profile:
        if has_password(self.execution.store):
            raise ValueError("the store's address holds a password: leave it to the nodes")
        return self


class LocalProfile(_Profile):
    """This machine, in a process of its own."""

    kind: Literal["local"] = "local"


class RayProfile(_Profile):
    """A cluster that runs, by the address of its Jobs API (the dashboard's)."""

    kind: Literal["ray"] = "ray"
    address: Line = JOBS_ADDRESS
    token_file: Line | None = None
    """The cluster's token on this machine; null: RAY_AUTH_TOKEN…, or .ray/auth_token at home."""
    ship: bool = False
    """Whether raycl itself travels too, for nodes whose Python has not got it."""
    requirements: Line | None = None
    """A requirements or constraints file on this machine that the nodes install first."""

    @field_validator("address")
    @classmethod
    def _is_http(cls, address: str) -> str:
        if not re.fullmatch(r"https?://[\w.\[\]:-]+(/[\w./-]*)?", address):
            raise ValueError("write http://HOST:8265, the address of the dashboard")
        return address.rstrip("/")


class KubeRayProfile(_Profile):
    """Kubernetes with the KubeRay operator, through kubectl."""

    kind: Literal["kuberay"] = "kuberay"
    mode: Literal["job", "cluster"] = "job"
    """`job`: each command brings a cluster of its own and takes it away. `cluster`: they are
    sent to one that `raycl cluster up` made."""
    name: DnsName = "raycl"
    namespace: DnsName = "default"
    context: Word | None = None
    image: Word
    ray_version: Word | None = None
    service_account: DnsName | None = None
    head: Node = Node(name="head", cpus=2, memory_gib=8, min=1, max=1)
    workers: tuple[Node, ...] = Field((Node(),), min_length=1)
    idle_seconds: int = Field(120, ge=10)
    retries: int = Field(3, ge=0)
    """New clusters that may follow one that failed; each continues from the store."""
    keep_seconds: int = Field(600, ge=0)
    """How long a finished job's cluster stays, for its logs."""
    deadline_hours: float | None = Field(None, gt=0)
    address: Line = JOBS_ADDRESS
    """In mode `cluster`: where `kubectl port-forward` puts the Jobs API."""
    token_file: Line | None = None

    @model_validator(mode="after")
    def _can_mount(self) -> KubeRayProfile:
        without = [mount.path for mount in self.mounts if mount.claim is None]
        if without:
            raise ValueError(f"the mount {without[0]} needs a claim on Kubernetes")
        _refuse_two_of_a_name(self.workers)
        return self


class SlurmProfile(_Profile):
    """Slurm: one sbatch job per command, which starts Ray on its nodes."""

    kind: Literal["slurm"] = "slurm"
    folder: AbsolutePath
    """On a mount: where scripts, logs and tokens of jobs go."""
    nodes: int = Field(1, ge=1)
    node: Node = Node()
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    hours: float = Field(24, gt=0)
    requeue: bool = True
    """Whether a preempted job, or one at its time limit, starts again and continues."""
    warn_seconds: int = Field(120, ge=20)
    """How long before the time limit a run is told to save."""
    temporary: AbsolutePath = "/tmp"
    """On each node: short, local and writable, for Ray's sockets."""
    setup: tuple[Line, ...] = ()
    """Shell lines that come first, such as `module load cuda`."""

    @model_validator(mode="after")
    def _keeps_secrets_where_nodes_see_them(self) -> SlurmProfile:
        if any(secret.kubernetes for secret in self.secrets.values()):
            raise ValueError("Slurm has no Kubernetes secrets: use env or file")
        if not under(self.folder, self.mounts):
            raise ValueError(f"folder {self.folder} is not on a mount that every node sees")
        if re.search(r"[^\w./-]", self.folder + self.temporary):
            raise ValueError("folder and temporary may hold letters, digits, . _ - and / only")
        return self


class LauncherProfile(_Profile):
    """Machines that Ray's cluster launcher starts (`ray up`): AWS, GCP, or hosts of your own."""

    kind: Literal["launcher"] = "launcher"
    provider: Literal["aws", "gcp", "onprem"]
    name: DnsName = "raycl"
    region: Word | None = None
    zone: Word | None = None
    project: Word | None = None
    image: Word | None = None
    """A container image for all nodes; null: `setup` installs into the machines themselves."""
    machine_image: Line | None = None
    """The AMI, or GCP's source image."""
    disk_gib: int = Field(200, ge=20)
    head: Node = Node(name="head", cpus=4, min=1, max=1)
    workers: tuple[Node, ...] = (Node(),)
    head_ip: Word | None = None
    worker_ips: tuple[Word, ...] = ()
    ssh_user: Word = "ubuntu"
    ssh_key: Line | None = None
    setup: tuple[Line, ...] = ()
    """Shell lines that each new machine runs once."""
    idle_minutes: int = Field(10, ge=1)
    address: Line = JOBS_ADDRESS
    """Where `ray dashboard` puts the Jobs API on this machine."""
    token_file: Line = "~/.ray/auth_token"
    """The token of the cluster, on this machine; it is copied to the nodes."""

    @model_validator(mode="after")
    def _has_what_its_provider_needs(self) -> LauncherProfile:
        needed = {"aws": ("region",), "gcp": ("project", "region", "zone"), "onprem": ("head_ip",)}
        missing = [name for name in needed[self.provider] if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.provider} needs {' and '.join(missing)}")
        if self.provider != "onprem":
            bare = [n.name for n in (self.head, *self.workers) if n.instance is None]
            if bare:
                raise ValueError(f"the node type {bare[0]} needs an instance")
        if any(secret.kubernetes for secret in self.secrets.values()):
            raise ValueError("machines have no Kubernetes secrets: use env or file")
        _refuse_two_of_a_name((self.head, *self.workers))
        return self


Profile = LocalProfile | RayProfile | KubeRayProfile | SlurmProfile | LauncherProfile


class _Wrapper(Spec):
    """The union as a field, so that complaints are worded as those of any config."""

    profile: Annotated[Profile, Field(discriminator="kind")]


def under(path: str, mounts: tuple[Mount, ...]) -> bool:
    """Whether an absolute path lies on one of the mounts."""
    return any(path == m.path or path.startswith(m.path.rstrip("/") + "/") for m in mounts)


def profile_of(tree: Mapping[str, Any]) -> Profile:
    """The checked profile; without a kind, this machine."""
    whole = {"kind": "local", **tree}
    _refuse_inline(whole)
    try:
        return check(_Wrapper, {"profile": whole}, strip=("profile",)).profile
    except ConfigError as error:
        # A complaint about several fields at once would show all of the profile.
        got = error.got if error.got is not None and len(error.got) < LONGEST_SHOWN else None
        what = re.sub(r" cannot be used: value error,", ":", error.what)
        raise ConfigError(what.removeprefix(": "), got=got, do=error.do) from None


def execution_part(tree: dict[str, Any]) -> dict[str, Any]:
    """What `--config` takes of a file: of a profile its execution block, else all of it."""
    if tree.get("kind") not in KINDS:
        return tree
    profile_of(tree)
    return {"execution": tree.get("execution", {})}


def _refuse_inline(tree: Mapping[str, Any]) -> None:
    """Before pydantic, whose complaint would show the value."""
    for block in ("secrets", "env"):
        values = tree.get(block)
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if _is_inline(block, str(name), value):
                raise ConfigError(
                    f"a profile holds no secrets, and {block}.{name} is one",
                    do=f"name where the nodes find it: secrets: {{{name}: {{env: {name}}}}}, "
                    "{file: /path} or {kubernetes: NAME/KEY}",
                )
    _refuse_passwords(tree, "")


def _is_inline(block: str, name: str, value: Any) -> bool:
    if block == "secrets":
        return not isinstance(value, Mapping) or not _is_variable(str(value.get("env", "NONE")))
    return is_secret_name(name) or looks_secret(str(value))


def _refuse_passwords(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_passwords(inner, f"{where}.{name}".strip("."))
    elif isinstance(value, list):
        for inner in value:
            _refuse_passwords(inner, where)
    elif isinstance(value, str) and looks_secret(value):
        raise ConfigError(
            f"{where} holds a secret or a password", do="name it under `secrets`, by reference"
        )


def _refuse_two_of_a_name(nodes: tuple[Node, ...]) -> None:
    names = [node.name for node in nodes]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two node types are named {name}")


def _is_variable(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None
