"""`raycl submit --cluster C -- COMMAND…`: the same command, somewhere else."""

from __future__ import annotations

import importlib
import json
import os

import click

from raycl.cli.main import COMMANDS
from raycl.config.clusters import Profile, RayProfile
from raycl.config.loading import suggest
from raycl.errors import ConfigError
from raycl.launch.command import Command, gather, kept_offline, with_requirements
from raycl.launch.profiles import read_profile
from raycl.launch.render import render
from raycl.observe.console import say

CAN_BE_SENT = ("run", "embed", "fit", "sweep", "caption", "synth")

cluster = click.option(
    "--cluster", required=True, metavar="NAME|FILE", help="A profile in clusters/, or a file."
)


@click.command(context_settings={"ignore_unknown_options": False})
@cluster
@click.option("--dry-run", is_flag=True, help="Print the files and the command, send nothing.")
@click.option("--check/--no-check", default=True, help="Whether to probe the cluster first.")
@click.option("--wait", is_flag=True, help="Follow the log, and exit as the job does.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.argument("command", nargs=-1, required=True)
def submit(
    cluster: str, dry_run: bool, check: bool, wait: bool, as_json: bool, command: tuple[str, ...]
) -> int:
    """Send COMMAND to a cluster; the same again gives the job that lives, or a new attempt.

    Config files, search spaces and methods of your own that COMMAND names travel with it.
    """
    profile = read_profile(cluster)
    asked = kept_offline(command_of(command, profile), os.environ)
    if dry_run:
        say(render(asked, profile).text())
        return 0
    from raycl.launch.sending import follow, send

    sent = send(asked, profile, check=check, tell=lambda line: say(line, err=True))
    if as_json:
        click.echo(json.dumps(sent.as_json()))
    elif sent.job is not None:
        say(sent.job.id)
    if sent.job is None:
        return sent.code
    if not wait:
        return 0
    return follow(sent.job.id, profile, lambda text: click.echo(text, nl=False))


def command_of(args: tuple[str, ...], profile: Profile) -> Command:
    """The command with its files, after its own options have been checked."""
    args = args[1:] if args[0] == "raycl" else args
    if not args or args[0] not in (*CAN_BE_SENT, *COMMANDS):
        name = args[0] if args else ""
        raise ConfigError(f"no command {name!r} to send", do=suggest(name, CAN_BE_SENT))
    if args[0] not in CAN_BE_SENT or args[0] not in COMMANDS:
        raise ConfigError(
            f"{args[0]} is not for a cluster", do=f"these can be sent: {', '.join(CAN_BE_SENT)}"
        )
    module = importlib.import_module(f"raycl.cli.{args[0]}")
    subcommand: click.Command = getattr(module, args[0])
    # Mistakes in the command's own options are told here, not by a job an hour later.
    subcommand.make_context(args[0], list(args[1:]))
    gathered = gather(args, _options(subcommand))
    if isinstance(profile, RayProfile):
        return with_requirements(gathered, profile.requirements)
    return gathered


def _options(subcommand: click.Command) -> dict[str, bool]:
    """The names of its options, and whether each takes a value."""
    return {
        name: not (option.is_flag or option.count)
        for option in subcommand.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
