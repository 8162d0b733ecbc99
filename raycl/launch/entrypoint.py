"""The script that runs on the cluster: one for every way of getting there.

Guarantees: every argument, path and value is quoted, whatever characters it has; the
command replaces the shell, so a signal reaches it and its exit code is the job's; what the
user asked of the execution stands, and the profile fills in the rest. The command knows its
job, under which it tells in the store what it is doing, and which variables hold secrets.
"""

from __future__ import annotations

import json
import shlex

from raycl.config.clusters import Profile, Secret
from raycl.launch.command import Command, leaves
from raycl.launch.reach import store_of
from raycl.redaction import LISTED
from raycl.store.pulses import JOB

SCRIPT = "run.sh"
_FLAGS = {"pool": "--pool", "address": "--address", "workers": "--workers"}
_WITH_SETTINGS = ("run", "embed", "fit", "caption", "synth")
"""Subcommands whose --set reaches the execution."""


def script(
    command: Command, profile: Profile, job: str, *, folder: str = "", exports: bool = True
) -> str:
    """A bash script for one node of the cluster, in the folder of the plan's files."""
    lines = ["#!/bin/bash", "set -euo pipefail"]
    if folder:
        lines.append(f"cd {shlex.quote(folder)}")
    if exports:
        lines += exported(command, profile)
    lines.append(f"export {JOB}={shlex.quote(job)}")
    if profile.secrets:
        lines.append(f"export {LISTED}={','.join(sorted(profile.secrets))}")
    lines += [_fetched(name, secret) for name, secret in sorted(profile.secrets.items())]
    return "\n".join([*(line for line in lines if line), _executed(command, profile), ""])


def exported(command: Command, profile: Profile) -> list[str]:
    """The profile's variables and the store, as shell lines."""
    variables = environment(command, profile)
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def environment(command: Command, profile: Profile) -> dict[str, str]:
    """What every process of the job has in its environment."""
    standard = {"RAYCL_STORE": store_of(command, profile), "RAY_USAGE_STATS_ENABLED": "0"}
    if profile.kind == "local" and "store" not in profile.execution.model_fields_set:
        del standard["RAYCL_STORE"]  # a command here knows what its own environment says
    return dict(sorted({**standard, **command.offline, **profile.env}.items()))


def _fetched(name: str, secret: Secret) -> str:
    if secret.file:
        return f'{name}="$(cat {shlex.quote(secret.file)})"; export {name}'
    if secret.env:
        return f'export {name}="${{{secret.env}:?the nodes have no such variable}}"'
    return ""  # Kubernetes has put it there


def _executed(command: Command, profile: Profile) -> str:
    return f"exec {shlex.join([profile.python, '-m', 'raycl', *arguments(command, profile)])}"


def arguments(command: Command, profile: Profile) -> list[str]:
    """The command's arguments, with those of the profile that the user did not give."""
    given = {path for path, _ in leaves(command.asked.get("execution", {}))}
    if command.asked.get("execution", {}).get("pool") == "local":
        return list(command.args)  # in the one process that the cluster starts for it
    added: list[str] = []
    for path, value in _settings(profile).items():
        if path in given:
            continue
        flag = _FLAGS.get(path)
        if flag in command.options:
            added += [str(flag), str(value)]
        elif command.subcommand in _WITH_SETTINGS:
            added += ["--set", f"execution.{path}={json.dumps(value)}"]
    # First, so that a setting of the user's own comes later.
    return [command.subcommand, *added, *command.args[1:]]


def _settings(profile: Profile) -> dict[str, object]:
    """The execution that a profile asks for; on a cluster always Ray, the one it runs in."""
    execution = profile.execution.model_dump(mode="json", exclude_unset=True, exclude={"store"})
    if profile.kind != "local":
        execution |= {"pool": "ray", "address": "auto"}
    return dict(leaves(execution))
