"""Clusters that stay: what makes them, takes them down and shows them.

Guarantees: nothing here starts without a token: KubeRay makes one, and for the launcher a
file of it is made on this machine, for this user alone, before the first node starts.
"""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from raycl.config.clusters import KubeRayProfile, LauncherProfile, Profile
from raycl.config.places import at_home
from raycl.errors import ClusterError, ConfigError
from raycl.launch.kuberay import CLUSTER_MANIFEST, dumped, kubectl, ray_cluster
from raycl.launch.launcher import FILE, launcher_file

_REACH = "`raycl cluster tunnel` on this profile, in a terminal of its own, reaches it"

Call = Callable[[Sequence[str], Path], int]


@dataclass(frozen=True)
class ClusterPlan:
    """Files, and programs run beside them one after the other."""

    programs: tuple[tuple[str, ...], ...]
    files: Mapping[str, str] = field(default_factory=dict)
    token_file: str | None = None
    """Made first if it is not there."""
    then: str = ""
    """What the user does next."""

    def text(self) -> str:
        """All of it, to be read."""
        blocks = [f"# {path}\n{content.rstrip()}\n" for path, content in self.files.items()]
        return "\n".join([*blocks, *(f"$ {shlex.join(argv)}" for argv in self.programs)])


def up(profile: Profile) -> ClusterPlan:
    """What makes the cluster, or changes it."""
    match profile:
        case KubeRayProfile(mode="cluster"):
            secret = [*kubectl(profile), "get", "secret", profile.name, "--output"]
            token = shlex.join([*secret, "jsonpath={.data.auth_token}"])
            return ClusterPlan(
                ((*kubectl(profile), "apply", "--filename", CLUSTER_MANIFEST),),
                {CLUSTER_MANIFEST: dumped([ray_cluster(profile)])},
                then=f"{_REACH}; its token: (umask 077; {token} | base64 -d > FILE), "
                "and token_file: FILE in the profile",
            )
        case LauncherProfile():
            return ClusterPlan(
                (("ray", "up", "--yes", FILE),),
                {FILE: launcher_file(profile)},
                token_file=profile.token_file,
                then=_REACH,
            )
        case _:
            raise _does_not_stay(profile)


def tunnel(profile: Profile) -> ClusterPlan:
    """What brings its Jobs API to a port of this machine, for as long as it runs."""
    match profile:
        case KubeRayProfile(mode="cluster"):
            service = f"service/{profile.name}-head-svc"
            ports = f"{_port(profile.address)}:8265"
            return ClusterPlan(((*kubectl(profile), "port-forward", service, ports),))
        case LauncherProfile():
            argv = ("ray", "dashboard", "--port", _port(profile.address), FILE)
            return ClusterPlan((argv,), {FILE: launcher_file(profile)})
        case _:
            raise _does_not_stay(profile)


def _port(address: str) -> str:
    return str(urlsplit(address).port or 80)


def down(profile: Profile) -> ClusterPlan:
    """What takes the cluster away."""
    match profile:
        case KubeRayProfile(mode="cluster"):
            return ClusterPlan(((*kubectl(profile), "delete", "raycluster", profile.name),))
        case LauncherProfile():
            return ClusterPlan((("ray", "down", "--yes", FILE),), {FILE: launcher_file(profile)})
        case _:
            raise _does_not_stay(profile)


def status_of(profile: Profile) -> ClusterPlan:
    """What shows its nodes."""
    match profile:
        case KubeRayProfile(mode="cluster"):
            pods = ("get", "raycluster,pods", "--selector", f"ray.io/cluster={profile.name}")
            cluster = (*kubectl(profile), "get", "raycluster", profile.name)
            return ClusterPlan((cluster, (*kubectl(profile), *pods)))
        case LauncherProfile():
            return ClusterPlan(
                (("ray", "exec", FILE, "RAY_AUTH_MODE=token ray status"),),
                {FILE: launcher_file(profile)},
            )
        case _:
            raise _does_not_stay(profile)


def _does_not_stay(profile: Profile) -> ConfigError:
    return ConfigError(
        "this profile has no cluster that raycl makes and keeps",
        got=f"kind: {profile.kind}",
        do="use kind: launcher, or kind: kuberay with mode: cluster; the others need no `up`",
    )


def called(argv: Sequence[str], folder: Path) -> int:
    """The exit code of a program that was run there."""
    try:
        return subprocess.run(argv, cwd=folder).returncode
    except FileNotFoundError as error:
        raise ClusterError(
            f"{argv[0]} is not on this machine", do=f"install it, or run where {argv[0]} is"
        ) from error


def carried_out(plan: ClusterPlan, call: Call = called) -> int:
    """Runs the programs; the first exit code that is not zero, or zero."""
    if plan.token_file:
        make_token(at_home(plan.token_file))
    with tempfile.TemporaryDirectory(prefix="raycl-cluster-") as folder:
        for path, content in plan.files.items():
            (Path(folder) / path).write_text(content)
        for argv in plan.programs:
            code = call(argv, Path(folder))
            if code:
                return code
    return 0


def make_token(path: Path) -> None:
    """A token that only this user can read, unless there is one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise ConfigError(
                "others can read the file of the cluster's token",
                got=str(path),
                do=f"chmod 600 {shlex.quote(str(path))}",
            ) from None
        return
    except OSError as error:
        raise ConfigError(
            "the file of the cluster's token cannot be written", got=str(path), do=str(error)
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
