"""What raycl says to Ray's own programs, parsed by those programs."""

from __future__ import annotations

import re
import shlex
from typing import Any

import click
import pytest
import yaml

from raycl.config.clusters import LauncherProfile
from raycl.launch.clusters import down, status_of, tunnel, up
from raycl.launch.launcher import launcher_file
from raycl.launch.profiles import read_profile
from tests.launch.made_plans import plan

DIGITS = ("run", "slda", "--stream", "digits")


@pytest.fixture(scope="module")
def ray_cli() -> Any:
    from ray.scripts.scripts import cli

    return cli


def understood(command: click.Command, args: list[str]) -> dict[str, Any]:
    """The parameters as the program takes them; an unknown option is an error."""
    options = [arg for arg in args if arg.startswith("--") and arg != "--"]
    unknown = [arg for arg in options if arg.partition("=")[0] not in names(command)]
    assert not unknown, f"{command.name} has no {unknown}"
    with command.make_context(command.name, list(args)) as context:
        return dict(context.params)


def names(command: click.Command) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def test_symmetric_run_takes_the_words_of_the_batch_script(ray_cli: Any) -> None:
    batch = plan(*DIGITS, profile="slurm").files["job.sbatch"]
    begin = batch.index("ray symmetric-run")
    words = batch[begin : batch.index(" -- bash run.sh")].replace("\\\n", " ")
    shares = re.search(r'^shares="(.*)"$', batch, re.MULTILINE)
    assert shares is not None
    words = words.replace("$shares", shares[1])
    words = re.sub(r'"\$\(\(.*?\)\)"', "22001", words).replace("$nodes", "2")
    args = shlex.split(words)[2:]
    own = understood(ray_cli.commands["symmetric-run"], args[:4])
    assert own["min_nodes"] == 2 and own["address"] == "$RAYCL_ADDRESS"
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    started = curate_and_validate_ray_start_args(args)
    for first in (["--head", "--port=6379"], ["--address=h:6379", "--block"]):
        params = understood(ray_cli.commands["start"], [*first, *started])
        assert params["num_gpus"] == 4 and params["object_store_memory"] == 60 * 2**30


@pytest.mark.parametrize("name", ["aws", "gcp", "onprem"])
def test_ray_start_takes_the_words_of_launcher_files(ray_cli: Any, name: str) -> None:
    profile = read_profile(name)
    assert isinstance(profile, LauncherProfile)
    tree = yaml.safe_load(launcher_file(profile))
    for role in ("head", "worker"):
        line = tree[f"{role}_start_ray_commands"][-1]
        args = shlex.split(line[line.index("ray start") :])[2:]
        params = understood(ray_cli.commands["start"], args)
        assert params["head"] == (role == "head") and params["object_store_memory"] > 2**30
        assert "RAY_AUTH_MODE=token" in line and "0.0.0.0" not in line


def test_the_programs_of_the_launcher_take_their_words(ray_cli: Any) -> None:
    profile = read_profile("aws")
    for plan_of in (up, tunnel, status_of, down):
        for program in plan_of(profile).programs:
            assert program[0] == "ray"
            understood(ray_cli.commands[program[1]], list(program[2:]))


def test_ray_job_submit_takes_the_words_of_a_plan() -> None:
    from ray.dashboard.modules.job.cli import submit

    argv = plan(*DIGITS, profile="ray").argv
    assert argv[:3] == ("ray", "job", "submit")
    params = understood(submit, list(argv[3:]))
    assert params["entrypoint"] == ("bash", "run.sh")
