"""`raycl cluster up|tunnel|down|status`: clusters that stay, made by KubeRay or Ray's launcher."""

from __future__ import annotations

import click

from raycl.launch.clusters import ClusterPlan, carried_out, down, status_of, tunnel, up
from raycl.launch.profiles import read_profile

named = click.argument("name", metavar="NAME|FILE")
dry_run = click.option("--dry-run", is_flag=True, help="Print the files and commands only.")


@click.group()
def cluster() -> None:
    """Clusters that stay: up, tunnel, down, status."""


@cluster.command("up")
@named
@dry_run
def bring_up(name: str, dry_run: bool) -> int:
    """Make the cluster of a profile, or change it to what the profile says now."""
    return _done(up(read_profile(name)), dry_run)


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
        click.echo(plan.text())
        return 0
    code = carried_out(plan)
    if code == 0 and plan.then:
        click.echo(plan.then, err=True)
    return code
