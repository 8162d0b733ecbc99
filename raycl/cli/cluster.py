"""`raycl cluster up|tunnel|down|status|head`: clusters that stay, made by KubeRay, by Ray's
launcher, or on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from raycl.cli.options import seconds_of
from raycl.launch.clusters import ClusterPlan, called, carried_out, down, status_of, tunnel, up
from raycl.launch.profiles import read_profile
from raycl.observe.console import say

named = click.argument("name", metavar="NAME|FILE")
LOOPBACK = "127.0.0.1"
idle_timeout = click.option("--idle-timeout", metavar="2h", help="End it once idle for so long.")
dry_run = click.option("--dry-run", is_flag=True, help="Print the files and commands only.")


@click.group()
def cluster() -> None:
    """Clusters that stay: up, tunnel, down, status, head."""


@cluster.command("up")
@named
@dry_run
@idle_timeout
def bring_up(name: str, dry_run: bool, idle_timeout: str | None) -> int:
    """Make the cluster of a profile, or change it to what the profile says now.

    With --idle-timeout this goes on watching, and takes it down after it was idle so long.
    """
    profile = read_profile(name)
    if idle_timeout is None or dry_run:
        return _done(up(profile), dry_run)
    from raycl.launch.idleness import up_while_used

    return up_while_used(profile, seconds_of(idle_timeout), called, _say)


@cluster.command()
@click.option("--host", default=LOOPBACK, show_default=True, help="A private address of here.")
@click.option("--port", default=6379, show_default=True, help="Where other nodes and drivers join.")
@click.option("--dashboard-port", default=8265, show_default=True, help="Where jobs are sent.")
@click.option("--cpus", type=click.IntRange(min=0), help="What it offers [all of this machine].")
@click.option("--gpus", type=click.IntRange(min=0), help="What it offers [all of this machine].")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    default=Path("~/.ray/auth_token"),
    show_default=True,
    help="Made, for you alone, if it is not there.",
)
@idle_timeout
def head(
    host: str,
    port: int,
    dashboard_port: int,
    cpus: int | None,
    gpus: int | None,
    token_file: Path,
    idle_timeout: str | None,
) -> int:
    """Run a Ray head on this machine, with a token, until Ctrl-C or until it is idle."""
    from raycl.launch.head import Head, keep

    idle = None if idle_timeout is None else seconds_of(idle_timeout)
    return keep(Head(host, port, dashboard_port, token_file, cpus, gpus, idle), _say)


def _say(text: str) -> None:
    say(text, err=True)


@cluster.command("tunnel")
@named
@dry_run
def dig_tunnel(name: str, dry_run: bool) -> int:
    """Bring its Jobs API to this machine's loopback, until interrupted."""
    return _done(tunnel(read_profile(name)), dry_run)


@cluster.command("down")
@named
@dry_run
def take_down(name: str, dry_run: bool) -> int:
    """Take the cluster away, with all that runs on it."""
    return _done(down(read_profile(name)), dry_run)


@cluster.command()
@named
@dry_run
def status(name: str, dry_run: bool) -> int:
    """Show the cluster's nodes, as its provider tells."""
    return _done(status_of(read_profile(name)), dry_run)


def _done(plan: ClusterPlan, dry_run: bool) -> int:
    if dry_run:
        say(plan.text())
        return 0
    code = carried_out(plan)
    if code == 0 and plan.then:
        say(plan.then, err=True)
    return code
