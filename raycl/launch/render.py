"""From a command and a profile to a plan: the one place that knows every kind of profile."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

from raycl.config.clusters import (
    KubeRayProfile,
    LauncherProfile,
    LocalProfile,
    Profile,
    RayProfile,
    SlurmProfile,
)
from raycl.launch import kuberay, slurm
from raycl.launch.command import REQUIREMENTS, Command, refuse_mistakes
from raycl.launch.entrypoint import SCRIPT, arguments, environment, script
from raycl.launch.plan import Plan, name_of
from raycl.launch.reach import check_reach

ENTRYPOINT = f"bash {SCRIPT}"
RUNTIME_ENV = "runtime_env.json"
OWN_PACKAGE = "raycl"
"""In a plan's py_modules: this very package, wherever it lies when the plan is sent."""


def render(command: Command, profile: Profile, attempt: int = 1) -> Plan:
    """The plan that sends the command; a `ConfigError` where it could not work there."""
    check_reach(command, profile)  # first, since another complaint might quote a secret
    refuse_mistakes(command)
    match profile:
        case LocalProfile():
            return _here(command, profile)
        case RayProfile():
            return _as_job(command, profile, attempt)
        case KubeRayProfile(mode="job"):
            return kuberay.job_plan(command, profile, attempt)
        case KubeRayProfile() | LauncherProfile():
            return _as_job(command, jobs_of(profile), attempt)
        case SlurmProfile():
            return slurm.job_plan(command, profile, attempt)


def jobs_of(profile: RayProfile | KubeRayProfile | LauncherProfile) -> RayProfile:
    """The Jobs API of a cluster that stays, whoever made it."""
    if isinstance(profile, RayProfile):
        return profile
    shared = {name: getattr(profile, name) for name in (
        "execution", "python", "mounts", "env", "secrets", "address", "token_file"
    )}  # fmt: skip
    return RayProfile(**shared)


def _here(command: Command, profile: LocalProfile) -> Plan:
    variables = [f"{k}={v}" for k, v in environment(command, profile).items()]
    here = replace(command, args=command.as_written)
    argv = ("env", *variables, profile.python, "-m", "raycl", *arguments(here, profile))
    return Plan(
        name=name_of(command, profile),
        attempt=1,
        files={},
        argv=argv,
    )


def _as_job(command: Command, profile: RayProfile, attempt: int) -> Plan:
    name = name_of(command, profile)
    runtime_env: dict[str, Any] = {"working_dir": ".", "env_vars": _variables(command, profile)}
    submission = f"{name}-{attempt}"
    files = {**command.files, SCRIPT: script(command, profile, submission, exports=False)}
    if REQUIREMENTS in files:
        runtime_env["pip"] = _packages(files[REQUIREMENTS])
    if profile.ship:
        runtime_env["py_modules"] = [OWN_PACKAGE]
    argv = (
        "ray", "job", "submit", "--no-wait", "--address", profile.address,
        "--submission-id", submission, "--working-dir", ".", "--runtime-env", RUNTIME_ENV,
        "--", *shlex.split(ENTRYPOINT),
    )  # fmt: skip
    return Plan(
        name=name,
        attempt=attempt,
        files={**files, RUNTIME_ENV: json.dumps(runtime_env, indent=2) + "\n"},
        argv=argv,
        runtime_env=runtime_env,
        entrypoint=ENTRYPOINT,
    )


def _packages(requirements: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in requirements.splitlines())
    return [line for line in lines if line]


def _variables(command: Command, profile: RayProfile) -> dict[str, str]:
    # Ray gives a job three seconds to stop; ours may take fifteen to save.
    return {"RAY_JOB_STOP_WAIT_TIME_S": "30", **environment(command, profile)}
