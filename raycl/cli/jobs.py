"""`raycl jobs`: what was sent to a cluster, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raycl.cli.submit import cluster
from raycl.launch.jobs import Job
from raycl.launch.profiles import read_profile
from raycl.launch.sending import ended, follow, sender_of


@click.group()
def jobs() -> None:
    """Commands that were sent to a cluster: list, status, logs, stop, wait."""


@jobs.command("list")
@cluster
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_jobs(cluster: str, as_json: bool) -> None:
    """List the jobs that raycl sent."""
    _show(sorted(sender_of(read_profile(cluster)).jobs(), key=lambda j: j.started), as_json)


@jobs.command()
@click.argument("job")
@cluster
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(job: str, cluster: str, as_json: bool) -> None:
    """What JOB is doing: an id, its beginning, or a command's name for its last attempt."""
    _show([sender_of(read_profile(cluster)).job(job)], as_json)


@jobs.command()
@click.argument("job")
@cluster
@click.option("-f", "--follow", "following", is_flag=True, help="Until the job ends.")
def logs(job: str, cluster: str, following: bool) -> int:
    """Print what JOB printed; with -f, exit as it does."""
    profile = read_profile(cluster)
    if following:
        return follow(job, profile, _print)
    sender = sender_of(profile)
    for text in sender.log(sender.job(job).id, follow=False):
        _print(text)
    return 0


@jobs.command()
@click.argument("job")
@cluster
def stop(job: str, cluster: str) -> None:
    """Ask JOB to save and stop; the same submit later continues."""
    sender = sender_of(read_profile(cluster))
    found = sender.job(job)
    if found.live:
        sender.stop(found.id)
        click.echo(f"{found.id} is told to stop", err=True)
    else:
        click.echo(f"{found.id} has ended: {found.state}", err=True)


@jobs.command()
@click.argument("job")
@cluster
def wait(job: str, cluster: str) -> int:
    """Wait for JOB, keep its log in the store, and exit with its exit code."""
    profile = read_profile(cluster)
    sender = sender_of(profile)
    found = ended(sender.job(job).id, profile, sender)
    click.echo(f"{found.id}: {found.state} {found.detail}".rstrip(), err=True)
    return found.exit_code


def _print(text: str) -> None:
    click.echo(text, nl=False)


def _show(found: Iterable[Job], as_json: bool) -> None:
    if as_json:
        for job in found:
            click.echo(json.dumps(job.as_json()))
        return
    table = Table(box=SIMPLE_HEAD)
    for name in ("job", "state", "code", "started", "detail"):
        table.add_column(name, no_wrap=name != "detail")
    for job in found:
        code = "–" if job.code is None else str(job.code)
        table.add_row(job.id, job.state, code, job.started[:19], Text(job.detail))
    Console().print(table, highlight=False)
